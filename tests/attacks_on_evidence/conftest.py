"""The attacked deployment, once for the package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from local.parts.ports import free_port
from stacks.roles import BY_NAME
from tests.attacks_on_evidence.site import PEOPLE, POLICY, Site
from tests.iam.conftest import PREFIX, SERVER, Deployed, deployed, template
from tests.local.conftest import account
from tests.roles import server_roles
from tests.server.conftest import Identity, deployment, issuers, wait_until_ready

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.server.conftest import Migration

__all__ = ["account", "deployed", "template"]


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    """Issuers of this folder's own."""
    with issuers(tmp_path_factory.mktemp("issuers")) as made:
        yield made


@pytest.fixture(scope="session")
def site(
    rds: RdsLike,
    migration: Migration,
    identity: Identity,
    deployed: Deployed,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """The server's own process with the credentials of its own role."""
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    task = deployed.roles[SERVER]
    members = {
        role: {"iam_roles": [person.arn for person in PEOPLE if person.role == role]} for role in BY_NAME
    }
    port = free_port()
    with deployment(rds, identity, copy_of=migration) as made:
        process = made.start(
            "serve",
            port=port,
            MLFLOW_AWS_PUBLIC_URL=f"https://localhost:{port}",
            MLFLOW_AWS_ARTIFACT_ROOT=f"s3://{deployed.bucket}/{PREFIX}",
            MLFLOW_AWS_ROLES=server_roles(members),
            AWS_ENDPOINT_URL_S3=task.endpoint,
            AWS_ACCESS_KEY_ID=task.access_key,
            AWS_SECRET_ACCESS_KEY=task.secret_key,
            AWS_SESSION_TOKEN=task.session_token or "",
        )
        try:
            wait_until_ready(process, port)
            yield Site(f"http://localhost:{port}", deployed, identity, policy, rds, made.database)
        finally:
            process.terminate()
            process.communicate(timeout=60)
