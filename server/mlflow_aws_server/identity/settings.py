"""What the gate needs to be told; the server's settings carry it as `identity`."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_aws_server.identity.mapping import RoleMap


@dataclass(frozen=True, kw_only=True)
class UserPool:
    """The Cognito user pool and the app client of the load balancer."""

    issuer: str
    client_id: str


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """Whose tokens are believed, for which audience, and who has which role. Nothing here is secret."""

    token_issuer: str
    token_audience: str
    public_url: str
    roles: RoleMap
    user_pool: UserPool | None = None
