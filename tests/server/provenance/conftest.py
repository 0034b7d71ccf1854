"""One server for the package, in this process."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.server.fastpath.conftest import new_mlflow_database, tested_mlflow
from tests.server.sealing.conftest import own

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.server.provenance.harness import Server

__all__ = ["new_mlflow_database", "own", "tested_mlflow"]


@pytest.fixture(scope="package")
def server(rds: RdsLike, new_mlflow_database: Callable[[], str], tested_mlflow: None) -> Iterator[Server]:
    """Provenance, the fast path and MLflow."""
    from tests.server.provenance.harness import serving

    loop = asyncio.new_event_loop()
    socket = str(rds.postgres.socket_directory)
    with serving(new_mlflow_database(), socket=socket, port=rds.port, loop=loop) as made:
        yield made
    loop.close()


@pytest.fixture
def name() -> str:
    """A name for a model that no other test uses."""
    return f"model-{secrets.token_hex(4)}"
