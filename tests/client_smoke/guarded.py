"""Stock MLflow behind the server's own gate and provenance: what uvicorn runs in the stand-in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.identity import Gate, IdentitySettings, RoleMap
from mlflow_aws_server.identity.keys import read_keys
from mlflow_aws_server.provenance import Provenance

from stacks.roles import BY_NAME
from tests.nothing_to_seal import NothingToSeal
from tests.roles import server_roles

ISSUER = "https://issuer.test"
AUDIENCE = "https://mlflow.test"
KEYS_FILE = "SMOKE_TEST_KEYS_FILE"
ROLES = tuple(BY_NAME)


def role_arn(role: str) -> str:
    """The IAM role of this name in the stand-in."""
    return f"arn:aws:iam::123456789012:role/mlflow-{role}"


def create_app() -> Any:
    """The application; the keys that sign tokens are in the file of the environment."""
    from mlflow.server.fastapi_app import app

    keys = read_keys(Path(os.environ[KEYS_FILE]).read_bytes())
    settings = IdentitySettings(
        token_issuers={ISSUER: "arn:aws:iam::123456789012"},
        token_audience=AUDIENCE,
        public_url=AUDIENCE,
        roles=RoleMap.parse(server_roles({role: {"iam_roles": [role_arn(role)]} for role in ROLES})),
    )
    # There is no PostgreSQL here to lock models in, and one worker and one client need none.
    questions = ConnectionPool(_no_database, connections=1, queue=1)
    provenance = Provenance(app, _no_database, questions, NothingToSeal())
    return Gate(provenance, settings, fetch=lambda _issuer: keys)


async def _no_database() -> Any:
    return _Unlocked()


class _Unlocked:
    async def execute(self, *_: object) -> None: ...

    async def fetchval(self, *_: object) -> None: ...

    async def close(self, **_: object) -> None: ...

    def terminate(self) -> None: ...
