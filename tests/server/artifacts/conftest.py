"""One server for the package, and stock MLflow on the same database and the same objects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import RdsLike
from tests.object_store import ObjectStore
from tests.server.artifacts.harness import Site, Stock, stock_mlflow
from tests.server.conftest import Identity, Migration, deployment
from tests.server.sealing.harness import registry


@pytest.fixture(scope="package")
def site(rds: RdsLike, identity: Identity, migration: Migration, object_store: ObjectStore) -> Iterator[Site]:
    """A server with artifacts behind it."""
    with deployment(rds, identity, copy_of=migration) as made, registry(made) as served:
        # Nothing is copied meanwhile: what these tests measure are downloads. And MiniStack accepts presigned
        # URLs of its own account only.
        served.start(
            MLFLOW_AWS_SEAL_AT="promotion",
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",
            AWS_SESSION_TOKEN="",
        )
        yield Site(served, identity)


@pytest.fixture
def stock(site: Site) -> Iterator[Stock]:
    """MLflow's own application, without anything of ours around it."""
    with stock_mlflow(site) as made:
        yield made
