"""Outbound web identity federation: what STS and IAM answer, and the issuer of the tokens that STS vends.

MiniStack's GetWebIdentityToken signs with a fixed shared key and takes every caller for root; IAM's three
operations are missing there. The shapes and error codes are those of the services' API models; the claims are
those of IAM's documentation, "Understanding token claims".
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from local.parts.token_issuer import TokenIssuer

ALGORITHMS = ("RS256", "ES384")
DEFAULT_SECONDS = 300
_SECONDS = (60, 3600)
_MOST_AUDIENCES = 10
_LONGEST_AUDIENCE = 1000
# The namespace of AWS's own claims.
CLAIMS = "https://sts.amazonaws.com/"


class StsError(Exception):
    """STS or IAM refuses a request: the HTTP status, AWS's error code, and the message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class TokenSubject:
    """The role (with its path) or user behind the caller's credentials, and when those end."""

    arn: str
    account_id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    expires: float | None = None


@dataclass(frozen=True)
class TokenRequest:
    """The parameters of GetWebIdentityToken."""

    audiences: tuple[str, ...]
    algorithm: str
    seconds: int = DEFAULT_SECONDS
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: Mapping[str, Sequence[str] | str]) -> TokenRequest:
        """Read the parameters of a Query API request.

        Raises:
            StsError: one is missing or out of its bounds.
        """

        def one(name: str) -> str:
            value = parameters.get(name, "")
            return value if isinstance(value, str) else value[0]

        audiences = _members(parameters, "Audience.member.{}")
        algorithm = one("SigningAlgorithm")
        if not audiences or not algorithm:
            missing = "Audience" if not audiences else "SigningAlgorithm"
            raise StsError(400, "ValidationError", f"The request must contain the parameter {missing}.")
        if len(audiences) > _MOST_AUDIENCES or any(len(each) > _LONGEST_AUDIENCE for each in audiences):
            raise StsError(400, "ValidationError", "Audience: at most 10 values of at most 1000 characters")
        if algorithm not in ALGORITHMS:
            raise StsError(400, "ValidationError", f"SigningAlgorithm must be one of {', '.join(ALGORITHMS)}")
        try:
            seconds = int(one("DurationSeconds") or DEFAULT_SECONDS)
        except ValueError:
            seconds = -1
        if not _SECONDS[0] <= seconds <= _SECONDS[1]:
            raise StsError(400, "ValidationError", "DurationSeconds must be between 60 and 3600")
        keys = _members(parameters, "Tags.member.{}.Key")
        values = _members(parameters, "Tags.member.{}.Value", count=len(keys))
        if len({key.lower() for key in keys}) < len(keys):
            raise StsError(400, "ValidationError", "Duplicate tag keys found; they are case insensitive.")
        return cls(tuple(audiences), algorithm, seconds, dict(zip(keys, values, strict=True)))

    def conditions(self) -> dict[str, Any]:
        """The values of the condition keys that IAM defines for this request."""
        return {
            "sts:IdentityTokenAudience": list(self.audiences),
            "sts:SigningAlgorithm": self.algorithm,
            "sts:DurationSeconds": str(self.seconds),
            **{f"aws:RequestTag/{key}": value for key, value in self.tags.items()},
            **({"aws:TagKeys": list(self.tags)} if self.tags else {}),
        }


@dataclass
class AccountIssuer(TokenIssuer):
    """The issuer of one account's tokens: RS256, or ES384 on request."""

    _curve: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )
    _curve_id: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def jwks(self) -> dict[str, Any]:
        """The published keys, RSA and EC (RFC 7517)."""
        point = jwt.algorithms.ECAlgorithm.to_jwk(self._curve.public_key(), as_dict=True)
        curve = {**point, "use": "sig", "alg": "ES384", "kid": self._curve_id}
        return {"keys": [*super().jwks["keys"], curve]}

    def issue(self, request: TokenRequest, subject: TokenSubject, *, region: str) -> tuple[str, float]:
        """Sign a token for a subject; returns it and when it expires, in seconds since 1970.

        Raises:
            StsError: it would outlive the caller's session.
        """
        now = int(time.time())
        expires = now + request.seconds
        if subject.expires is not None and expires > subject.expires:
            raise StsError(
                403,
                "SessionDurationEscalationException",
                "The requested token duration would extend the session beyond its original expiration time.",
            )
        own = {
            "aws_account": subject.account_id,
            "source_region": region,
            "principal_id": subject.arn,
            "principal_tags": dict(subject.tags),
            "request_tags": dict(request.tags),
        }
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": request.audiences[0] if len(request.audiences) == 1 else list(request.audiences),
            "sub": subject.arn,
            "iat": now,
            "exp": expires,
            "jti": secrets.token_hex(16),
            CLAIMS: {key: value for key, value in own.items() if value},
        }
        if request.algorithm == "RS256":
            return self.key.sign(claims), expires
        signed = jwt.encode(claims, self._curve, algorithm="ES384", headers={"kid": self._curve_id})
        return signed, expires


@dataclass
class Federation:
    """Which accounts have outbound federation on, and each account's issuer."""

    issuers: Mapping[str, AccountIssuer]
    enabled: set[str] = field(default_factory=set)

    def enable(self, account_id: str) -> str:
        """Switch it on; returns the issuer's URL.

        Raises:
            StsError: FeatureEnabled, if it is on already.
        """
        if account_id in self.enabled:
            raise StsError(
                409, "FeatureEnabled", "Outbound web identity federation is already enabled for this account."
            )
        self.enabled.add(account_id)
        return self.issuers[account_id].url

    def disable(self, account_id: str) -> None:
        """Switch it off.

        Raises:
            StsError: FeatureDisabled, if it is not on.
        """
        self.info(account_id)
        self.enabled.remove(account_id)

    def info(self, account_id: str) -> str:
        """The issuer's URL.

        Raises:
            StsError: FeatureDisabled, if it is not on.
        """
        if account_id not in self.enabled:
            raise StsError(
                404, "FeatureDisabled", "Outbound web identity federation is not enabled for this account."
            )
        return self.issuers[account_id].url

    def issuer_of(self, account_id: str) -> AccountIssuer:
        """The issuer of an account's tokens, if it is on.

        Raises:
            StsError: OutboundWebIdentityFederationDisabledException, if it is off.
        """
        if account_id not in self.enabled:
            raise StsError(
                403,
                "OutboundWebIdentityFederationDisabledException",
                "Outbound web identity federation is not enabled for this account: enable it first, with "
                "iam:EnableOutboundWebIdentityFederation.",
            )
        return self.issuers[account_id]


def _members(
    parameters: Mapping[str, Sequence[str] | str], pattern: str, *, count: int | None = None
) -> list[str]:
    found: list[str] = []
    while count is None or len(found) < count:
        value = parameters.get(pattern.format(len(found) + 1))
        if value is None and count is None:
            break
        found.append((value if isinstance(value, str) else value[0]) if value else "")
    return found
