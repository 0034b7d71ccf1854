"""A load balancer's jwt-validation action: checks the RS256 signature by published keys, times and claims.

As "Verify JWTs using an Application Load Balancer" in ELB's user guide has it: `iss` and `exp` are required,
`nbf` and `iat` are checked if present; a JWKS has at most 150 KB and 10 keys.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt

_MOST_KEYS = 10
_LARGEST_JWKS = 150 * 1024
# How long keys are used before they are fetched again, and how often an unknown key id may cause a fetch.
_FRESH_SECONDS = 300.0
_REFETCH_SECONDS = 2.0

Fetch = Callable[[str], Awaitable[bytes]]


class InvalidTokenError(Exception):
    """The token is not valid; the text says why, for the balancer's log."""


@dataclass
class _Published:
    keys: Mapping[str, jwt.PyJWK] = field(default_factory=dict)
    asked: float = float("-inf")


class TokenCheck:
    """Verifies tokens with keys that `fetch` gets from https URLs and that are cached for a while."""

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._published: dict[str, _Published] = {}

    async def claims(self, token: str, *, issuer: str, jwks: str) -> dict[str, Any]:
        """The claims of a token that this issuer has signed and that is valid now.

        Raises:
            InvalidTokenError: it is not.
        """
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != "RS256":
                raise InvalidTokenError(f"alg is {header.get('alg')!r}, not RS256")
            key = await self._key(jwks, str(header.get("kid", "")))
            return dict(
                jwt.decode(
                    token,
                    key.key,
                    algorithms=["RS256"],
                    issuer=issuer,
                    options={"require": ["iss", "exp"], "verify_aud": False},
                )
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidTokenError(f"{type(error).__name__}: {error}") from error

    async def _key(self, url: str, key_id: str) -> jwt.PyJWK:
        published = self._published.setdefault(url, _Published())
        age = self._clock() - published.asked
        if age > _FRESH_SECONDS or (key_id not in published.keys and age > _REFETCH_SECONDS):
            published.asked = self._clock()
            published.keys = read_keys(await self._fetch(url))
        if key_id not in published.keys:
            raise InvalidTokenError(f"{url} has no key {key_id!r}")
        return published.keys[key_id]


def read_keys(document: bytes) -> dict[str, jwt.PyJWK]:
    """The signing keys of a JWKS by their ids.

    Raises:
        InvalidTokenError: it is not a JWKS, or is larger than a load balancer accepts.
    """
    try:
        keys = json.loads(document)["keys"] if len(document) <= _LARGEST_JWKS else None
    except (ValueError, KeyError, TypeError):
        keys = None
    if not isinstance(keys, list) or len(keys) > _MOST_KEYS:
        raise InvalidTokenError("the issuer's JWKS is malformed, or has more than 150 KB or 10 keys")
    return {
        str(each["kid"]): jwt.PyJWK(each) for each in keys if each.get("kty") == "RSA" and each.get("kid")
    }


def bearer(authorizations: Sequence[str]) -> str:
    """The token of a request's Authorization headers.

    Raises:
        InvalidTokenError: there is not exactly one header of the scheme Bearer.
    """
    if len(authorizations) != 1:
        raise InvalidTokenError(f"{len(authorizations)} Authorization headers")
    scheme, _, token = authorizations[0].partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidTokenError("no bearer token")
    return token.strip()


def has_claim(claims: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a token has one of the values of an additional claim, in the claim's stated format."""
    value, values, form = claims.get(wanted["Name"]), set(wanted["Values"]), wanted["Format"]
    if form == "single-string":
        return isinstance(value, str) and value in values
    if form == "space-separated-values":
        return isinstance(value, str) and bool(values & set(value.split()))
    if form == "string-array":
        return isinstance(value, list) and bool(values & {each for each in value if isinstance(each, str)})
    return False
