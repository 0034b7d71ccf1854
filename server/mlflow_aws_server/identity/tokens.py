"""Verify a JSON Web Token (RFC 7519)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.utils import base64url_decode

from mlflow_aws_server.identity.errors import UnauthenticatedError
from mlflow_aws_server.identity.keys import KEY_ID

LARGEST_TOKEN = 16 * 1024
LEEWAY_SECONDS = 30
# A token of the future gives nobody time that its issuer did not give; refusing it would lock everybody out
# of a server whose clock is behind.
EARLY_SECONDS = 300

_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# With each of these, the token itself would choose its key, encoding or rules.
_REFUSED_HEADERS = ("jku", "x5u", "jwk", "x5c", "crit", "b64", "zip", "enc")

_GET_A_NEW_ONE = "Get a new token and try again."

Claims = Mapping[str, Any]
FindKey = Callable[[str], Awaitable[rsa.RSAPublicKey | None]]


async def verify(token: bytes, *, issuers: Mapping[str, FindKey], audience: str | None) -> Claims:
    """The claims of a token that one of `issuers` signed with RS256, valid now and, if asked, for `audience`.

    A token is checked with the keys of the issuer that it names, letter by letter, and no other's. The
    audience must be a single string, not a list; without `audience` the claim is not checked: Cognito's
    access tokens have `client_id` instead. A token holds 30 s longer and begins five minutes sooner than it
    says, for clocks that differ.

    Raises:
        UnauthenticatedError: it is not such a token; the message says why and repeats none of it.
        IssuerUnavailableError: its key cannot be fetched at the moment.
    """
    key_id = _key_id(token)
    issuer = _claimed_issuer(token)
    if issuer not in issuers:
        raise _refused("issuer", f"was not issued by {' or '.join(issuers)}")
    key = await issuers[issuer](key_id)
    if key is None:
        raise _refused("unknown-key", "is signed with a key that its issuer does not publish")
    return _claims(token, key, issuer=issuer, audience=audience)


def _claimed_issuer(token: bytes) -> str:
    """The issuer that the token names. Nothing is verified yet: it only says whose keys to try."""
    try:
        claims = json.loads(base64url_decode(token.split(b".")[1]))
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise _refused("malformed", "cannot be read")
    if "iss" not in claims:
        raise _refused("claims", "lacks a required claim")
    return str(claims["iss"])


def _key_id(token: bytes) -> str:
    """The key id in the token's header, if nothing else in the header is suspicious."""
    if len(token) > LARGEST_TOKEN:
        raise _refused("oversized", f"is longer than {LARGEST_TOKEN} bytes")
    if not _COMPACT.fullmatch(token):
        raise _refused("malformed", "is not a JSON Web Token (three parts of base64url)")
    try:
        header = json.loads(base64url_decode(token[: token.index(b".")]))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise _refused("malformed", "has no readable header")
    if header.get("alg") != "RS256":
        raise _refused("algorithm", "is not signed with RS256")
    if any(name in header for name in _REFUSED_HEADERS):
        raise _refused("header", "has a header that would choose how it is verified")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id):
        raise _refused("key-id", "has no valid key id")
    return key_id


def _claims(token: bytes, key: rsa.RSAPublicKey, *, issuer: str, audience: str | None) -> Claims:
    try:
        claims: Claims = jwt.decode(
            token.decode("ascii"),
            key,
            algorithms=["RS256"],
            issuer=issuer,
            audience=audience,
            leeway=EARLY_SECONDS,
            options={
                "require": ["iss", "exp", "iat", "sub", *(["aud"] if audience is not None else [])],
                "strict_aud": audience is not None,
                "verify_aud": audience is not None,
            },
        )
        if int(claims["exp"]) <= time.time() - LEEWAY_SECONDS:
            raise jwt.ExpiredSignatureError
        return claims
    except jwt.InvalidSignatureError:
        raise _refused("signature", "has a wrong signature") from None
    except jwt.ExpiredSignatureError:
        raise _refused("expired", "has expired") from None
    except jwt.ImmatureSignatureError:
        raise _refused("not-yet-valid", "is not valid yet; compare this machine's clock") from None
    except jwt.InvalidIssuerError:
        raise _refused("issuer", f"was not issued by {issuer}") from None
    except (jwt.InvalidAudienceError, jwt.MissingRequiredClaimError) as error:
        if isinstance(error, jwt.MissingRequiredClaimError) and error.claim != "aud":
            raise _refused("claims", "lacks a required claim") from None
        raise UnauthenticatedError(
            "audience",
            f"The token is not for this server: its audience must be {audience}, as a single string. "
            "Ask AWS STS for a token with this audience (MLFLOW_AWS_AUDIENCE of mlflow-aws-auth).",
        ) from None
    except Exception:
        # Anything else that a token can hold, such as a malformed number.
        raise _refused("malformed", "cannot be read") from None


def _refused(reason: str, what: str) -> UnauthenticatedError:
    return UnauthenticatedError(reason, f"The token {what}. {_GET_A_NEW_ONE}")
