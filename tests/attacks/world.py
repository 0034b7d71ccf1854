"""A deployment under attack: its doors, its issuers, and the attacker's issuer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.parts.token_issuer import TokenIssuer
from tests.attacks.deployed_rules import AUDIENCE
from tests.attacks.doors import Door, Request
from tests.attacks.user_pool import UserPool
from tests.roles import server_roles

ACCOUNT = "arn:aws:iam::123456789012"
PARTNER = "arn:aws:iam::222233334444"
VIEWER = f"{ACCOUNT}:role/team/viewer"
ADMIN = f"{ACCOUNT}:role/team/admin"
BATCH = f"{ACCOUNT}:role/batch/nightly/train"
PARTNER_ADMIN = f"{PARTNER}:role/admin"
ROLES = server_roles(
    {
        "viewer": {"iam_roles": [VIEWER], "groups": ["mlflow-viewer"]},
        "contributor": {"iam_roles": [f"{ACCOUNT}:role/batch/*"], "groups": ["mlflow-contributor"]},
        "admin": {"iam_roles": [ADMIN, PARTNER_ADMIN], "groups": ["mlflow-admin"]},
    }
)

# Attacks try to read and to write.
READ = Request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
WRITE = Request("POST", "/api/2.0/mlflow/experiments/create", {"name": "written by an attack"})


@dataclass(frozen=True)
class World:
    """The real server, two doors to it, its issuers, and the attacker's own issuer."""

    direct: Door
    balancer: Door
    sts: TokenIssuer
    partner: TokenIssuer
    pool: UserPool
    mallory: TokenIssuer
    environ: dict[str, str]
    log: Path
    rows: Callable[[], list[tuple[Any, ...]]]

    def token(self, subject: str = ADMIN, **changes: Any) -> str:
        """A valid token, unless `changes` make it invalid."""
        return self.sts.token(**{"subject": subject, "audience": AUDIENCE, **changes})

    def partner_token(self, subject: str = PARTNER_ADMIN, **changes: Any) -> str:
        """A valid token of a second account's role."""
        return self.partner.token(**{"subject": subject, "audience": AUDIENCE, **changes})

    @property
    def doors(self) -> tuple[Door, Door]:
        """Both doors."""
        return self.balancer, self.direct
