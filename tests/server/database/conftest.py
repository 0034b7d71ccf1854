"""All that is behind the gate in one process, on a database of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from tests.server.fastpath.conftest import new_mlflow_database, tested_mlflow

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.server.database.harness import Stack

__all__ = ["new_mlflow_database", "tested_mlflow"]


@pytest.fixture(scope="module")
def stack(rds: RdsLike, new_mlflow_database: Callable[[], str], tested_mlflow: None) -> Iterator[Stack]:
    """Provenance, the fast path, frozen, redaction and MLflow."""
    from mlflow.server import app as flask_app
    from mlflow_aws_server.database.errors import conceal, reveal
    from mlflow_aws_server.redaction import Redaction
    from mlflow_aws_server.stock import mlflow_app

    from tests.server.database.harness import Stack
    from tests.server.frozen.harness import freeze
    from tests.server.provenance.harness import serving

    # Other tests may have asked this process's MLflow already; a server prepares it before that.
    with (
        mock.patch.object(flask_app, "_got_first_request", False),
        mock.patch.dict(flask_app.error_handler_spec[None][None], clear=False),
    ):
        mlflow_app()
        loop = asyncio.new_event_loop()
        database = new_mlflow_database()
        with serving(database, socket=str(rds.postgres.socket_directory), port=rds.port, loop=loop) as server:
            server.fast_path._app = Redaction(server.fast_path._app, hosts=["db.example"])
            conceal()
            yield Stack(rds, freeze(server, ended_runs_by_author=True))
            reveal()
        loop.close()
