"""An issuer of tokens for our server under load, and a contributor's token for the load generator.

Our server's gate cannot be switched off: each call is verified, mapped to a role and, if it changes
something, audited. Stock MLflow verifies nobody.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from local.parts.certificates import CertificateAuthority
from local.parts.token_issuer import TokenIssuer

_ROLE = "arn:aws:iam::000000000000:role/bench/load-generator"
_CLIENT, _GROUP = "1bench", "bench"
# Longer than any benchmark lasts; STS issues tokens for an hour at most.
_SECONDS = 6 * 3600


@dataclass(frozen=True)
class Identity:
    """The server's settings, and the headers of a call, which hold a token and are never shown."""

    environment: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)


@contextlib.contextmanager
def contributor(authority: CertificateAuthority, *, audience: str) -> Iterator[Identity]:
    """A contributor's identity, by an issuer that publishes its keys until the end of the `with` block."""
    certificate = authority.issue("localhost", name="token-issuer")
    with TokenIssuer.create(certificate).serving() as issuer:
        token = issuer.token(subject=_ROLE, audience=audience, seconds=_SECONDS)
        yield Identity(
            environment={
                "MLFLOW_AWS_TOKEN_ISSUERS": f"arn:aws:iam::000000000000={issuer.url}",
                "MLFLOW_AWS_TOKEN_AUDIENCE": audience,
                "MLFLOW_AWS_ROLES": _roles(),
                "SSL_CERT_FILE": str(authority.bundle),
            },
            headers={"Authorization": f"Bearer {token}"},
        )


@contextlib.contextmanager
def person(authority: CertificateAuthority) -> Iterator[Identity]:
    """A contributor's identity as a person, with what the load balancer adds to a session's requests."""
    certificate = authority.issue("localhost", name="user-pool")
    with TokenIssuer.create(certificate).serving() as pool:
        token = pool.user_token(username="bench", client_id=_CLIENT, groups=[_GROUP], seconds=_SECONDS)
        yield Identity(
            environment={
                "MLFLOW_AWS_USER_POOL_ISSUER": pool.url,
                "MLFLOW_AWS_USER_POOL_CLIENT_ID": _CLIENT,
                "MLFLOW_AWS_ROLES": _roles(groups=[_GROUP]),
            },
            headers={"x-amzn-oidc-accesstoken": token},
        )


def _roles(**more: object) -> str:
    role = {"permissions": ["read", "write"], "iam_roles": [_ROLE], **more}
    return json.dumps({"contributor": role})
