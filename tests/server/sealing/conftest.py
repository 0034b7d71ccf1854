"""One server for the package, and registries whose servers a test starts and kills itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import RdsLike
from tests.object_store import ObjectStore
from tests.server.conftest import Identity, Migration, deployment
from tests.server.sealing.harness import Registry, registry


@pytest.fixture(scope="package")
def served(
    rds: RdsLike, identity: Identity, migration: Migration, object_store: ObjectStore
) -> Iterator[Registry]:
    """A registry with one server, which tests share."""
    with deployment(rds, identity, copy_of=migration) as made, registry(made) as shared:
        shared.start()
        yield shared


@pytest.fixture
def own(
    rds: RdsLike, identity: Identity, migration: Migration, object_store: ObjectStore
) -> Iterator[Registry]:
    """A registry of the test's own, without a server yet."""
    with deployment(rds, identity, copy_of=migration) as made, registry(made) as mine:
        yield mine
