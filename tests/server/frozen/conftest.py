"""One server for the package, and a client for each caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.server.fastpath.conftest import new_mlflow_database, tested_mlflow

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.server.frozen.harness import Caller
    from tests.server.provenance.harness import Server

__all__ = ["new_mlflow_database", "tested_mlflow"]


@pytest.fixture(scope="package")
def server(rds: RdsLike, new_mlflow_database: Callable[[], str], tested_mlflow: None) -> Iterator[Server]:
    """Provenance, the fast path, what is frozen, and MLflow."""
    from tests.server.frozen.harness import freeze
    from tests.server.provenance.harness import serving

    loop = asyncio.new_event_loop()
    socket = str(rds.postgres.socket_directory)
    with serving(new_mlflow_database(), socket=socket, port=rds.port, loop=loop) as made:
        yield freeze(made, ended_runs_by_author=True)
    loop.close()


@pytest.fixture
def alice(server: Server) -> Caller:
    """A contributor, who creates what the tests are about."""
    from tests.server.frozen.harness import ALICE, Caller

    return Caller(server, ALICE)


@pytest.fixture
def bob(server: Server) -> Caller:
    """Another contributor."""
    from tests.server.frozen.harness import BOB, Caller

    return Caller(server, BOB)


@pytest.fixture
def approver(server: Server) -> Caller:
    """Somebody who may approve."""
    from tests.server.frozen.harness import APPROVER, Caller

    return Caller(server, APPROVER)
