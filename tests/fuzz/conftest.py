"""A server as dev's task runs it, with one of each kind of object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from local.parts.ports import free_port
from tests.server.conftest import deployment, identity, wait_until_ready

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.fuzz.runner import Fuzz
    from tests.object_store import ObjectStore
    from tests.server.conftest import Identity, Migration

__all__ = ["identity"]


@pytest.fixture
def fuzz(rds: RdsLike, identity: Identity, migration: Migration, object_store: ObjectStore) -> Iterator[Fuzz]:
    """Nothing sent yet."""
    # Schemathesis takes a second, which only those wait for who use it.
    from tests.fuzz.runner import Fuzz
    from tests.fuzz.world import World

    port = free_port()
    with deployment(rds, identity, copy_of=migration) as made:
        process = made.start("serve", port=port)
        try:
            wait_until_ready(process, port)
            world = World(port, object_store)
            fuzz = Fuzz(world, identity, port, process)
            with fuzz.watched():
                yield fuzz
        finally:
            process.terminate()
            process.wait(60)
