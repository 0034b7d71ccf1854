"""Tokens that no verifier may accept, made by hand, since libraries refuse to make some of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from local.parts.token_issuer import SigningKey

Part = Mapping[str, Any]


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token."""
    header, claims, _ = token.split(".")
    return json.loads(_decoded(header)), json.loads(_decoded(claims))


def unsigned(token: str, *, algorithm: str, signature: str = "") -> str:
    """The same claims under another `alg`, with an arbitrary signature."""
    header, claims = parts(token)
    return f"{_content({**header, 'alg': algorithm}, claims)}.{signature}"


def by_public_key(token: str, key: SigningKey) -> str:
    """HS256 with the published key as its secret (CVE-2015-9235 and similar)."""
    header, claims = parts(token)
    content = _content({**header, "alg": "HS256"}, claims)
    return f"{content}.{_encoded(hmac.new(key.public_pem, content.encode(), hashlib.sha256).digest())}"


def by_elliptic_curve(token: str) -> str:
    """ES384 with the attacker's key, under the id of the published one."""
    header, claims = parts(token)
    key = ec.generate_private_key(ec.SECP384R1())
    return jwt.encode(claims, key, algorithm="ES384", headers={"kid": header["kid"]})


def by_true_key(token: str, key: SigningKey, *, algorithm: str) -> str:
    """The issuer's own key with an algorithm other than RS256."""
    _, claims = parts(token)
    return jwt.encode(claims, key.private, algorithm=algorithm, headers={"kid": key.key_id})


def with_header(token: str, key: SigningKey, **header: object) -> str:
    """The same claims, signed with RS256 by `key`, under the attacker's header."""
    own, claims = parts(token)
    content = _content({**own, **header}, claims)
    signature = key.private.sign(content.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{content}.{_encoded(signature)}"


def with_claims(token: str, **changed: object) -> str:
    """The original signature with other claims."""
    header, claims = parts(token)
    return f"{_content(header, {**claims, **changed})}.{token.rpartition('.')[2]}"


def _content(header: Part, claims: Part) -> str:
    return ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
