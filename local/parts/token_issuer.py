"""An issuer of RS256 tokens that publishes its keys over HTTPS on loopback; stands in for STS and Cognito.

Tokens are really signed and really verified; only the account behind them is made up.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from local.parts.certificates import ServerCertificate
from local.parts.http_server import JsonHandler, serving

_KEY_BITS = 2048
KEYS_PATH = "/.well-known/jwks.json"
DISCOVERY_PATH = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class SigningKey:
    """An RSA key and the id under which it is published."""

    private: rsa.RSAPrivateKey
    key_id: str

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key of 2048 bits."""
        return cls(
            rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS), secrets.token_urlsafe(16)
        )

    @property
    def public_pem(self) -> bytes:
        """The public half in PEM."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half as a JSON Web Key (RFC 7517)."""
        numbers = self.private.public_key().public_numbers()
        return {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.key_id,
            "n": _base64url(numbers.n),
            "e": _base64url(numbers.e),
        }

    def sign(self, claims: Mapping[str, Any], *, headers: Mapping[str, Any] | None = None) -> str:
        """Sign `claims` as a compact JWT (RFC 7519); `headers` add to or replace its header's fields."""
        return jwt.encode(
            dict(claims), self.private, algorithm="RS256", headers={"kid": self.key_id, **(headers or {})}
        )


@dataclass
class TokenIssuer:
    """An issuer that the tracking server accepts when it is given this issuer's URL.

    `available = False` makes it answer 503; `fetches` counts how often its keys were asked for.
    """

    certificate: ServerCertificate
    host: str = "localhost"
    port: int = 0
    available: bool = True
    fetches: int = 0
    keys: list[SigningKey] = field(default_factory=lambda: [SigningKey.generate()])

    @classmethod
    def create(cls, certificate: ServerCertificate, *, host: str = "localhost", port: int = 0) -> TokenIssuer:
        """Make an issuer with one key; it listens while it is `serving`."""
        return cls(certificate=certificate, host=host, port=port)

    @property
    def url(self) -> str:
        """The issuer's identifier, the `iss` of its tokens."""
        return f"https://{self.host}:{self.port}"

    @property
    def key(self) -> SigningKey:
        """The current signing key."""
        return self.keys[-1]

    @property
    def jwks(self) -> dict[str, Any]:
        """The published keys (RFC 7517)."""
        return {"keys": [key.public_jwk for key in self.keys]}

    def rotate(self) -> None:
        """Sign with a new key from now on; the old ones stay published until `forget_old`."""
        self.keys = [*self.keys, SigningKey.generate()]

    def forget_old(self) -> None:
        """Publish only the current key."""
        self.keys = self.keys[-1:]

    def token(
        self,
        *,
        subject: str,
        audience: str | Sequence[str],
        seconds: int = 300,
        claims: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> str:
        """Issue what `sts:GetWebIdentityToken` gives a role; a claim of None is left out.

        The shape is that of IAM's documentation, "Understanding token claims".
        """
        now = int(time.time())
        account = subject.split(":")[4] if subject.count(":") >= 5 else ""
        content = {
            "iss": self.url,
            "aud": audience,
            "sub": subject,
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_hex(16),
            "https://sts.amazonaws.com/": {"aws_account": account, "source_region": "eu-central-1"},
            **(claims or {}),
        }
        return self.key.sign({k: v for k, v in content.items() if v is not None}, headers=headers)

    def user_token(
        self,
        *,
        username: str,
        client_id: str,
        groups: Sequence[str] = (),
        seconds: int = 300,
        claims: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> str:
        """Issue the access token that Cognito gives a signed-in user; a claim of None is left out."""
        now = int(time.time())
        content = {
            "iss": self.url,
            "sub": secrets.token_hex(16),
            "client_id": client_id,
            "token_use": "access",
            "scope": "openid",
            "auth_time": now,
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_hex(16),
            "username": username,
            "cognito:groups": list(groups) or None,
            **(claims or {}),
        }
        return self.key.sign({k: v for k, v in content.items() if v is not None}, headers=headers)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Self]:
        """Publish the keys at `url` until the end of the `with` block."""
        with serving(self.handler(), certificate=self.certificate, port=self.port) as self.port:
            yield self

    def handler(self) -> type[JsonHandler]:
        """The request handler that answers at `url`."""
        issuer = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                if self.path == KEYS_PATH:
                    issuer.fetches += 1
                documents = {
                    KEYS_PATH: issuer.jwks,
                    DISCOVERY_PATH: {
                        "issuer": issuer.url,
                        "jwks_uri": issuer.url + KEYS_PATH,
                        "id_token_signing_alg_values_supported": ["RS256"],
                    },
                }
                if not issuer.available:
                    self.answer(503, {"message": "unavailable"})
                elif self.path in documents:
                    self.answer(200, documents[self.path])
                else:
                    self.answer(404, {"message": "not found"})

        return Handler


def _base64url(number: int) -> str:
    length = (number.bit_length() + 7) // 8
    return base64.urlsafe_b64encode(number.to_bytes(length, "big")).rstrip(b"=").decode()
