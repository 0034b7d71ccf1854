"""The ASGI application: readiness, gate, provenance, fast path, what is frozen, and stock MLflow behind them.

uvicorn calls `create_app` in every worker process. `mlflow server --app-name mlflow-aws` finds it too, by
the entry point group `mlflow.app`.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from mlflow_aws_server.asgi import App, Message, Receive, Scope, Send
from mlflow_aws_server.identity import Gate, IdentitySettings
from mlflow_aws_server.readiness import Readiness
from mlflow_aws_server.settings import ServerSettings

if TYPE_CHECKING:
    from mlflow_aws_server.sealing import Sealing

# How many callers may wait for the connection on which questions are asked.
_QUEUE = 1024


def create_app() -> App:
    """Build the application of one worker process, configured by the environment.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    # Imported here, so that importing this module does not import MLflow.
    from mlflow_aws_server.database.check import DatabaseCheck
    from mlflow_aws_server.database.connect import connector
    from mlflow_aws_server.database.pool import ConnectionPool
    from mlflow_aws_server.frozen import Frozen
    from mlflow_aws_server.provenance import ArtifactPlaces, Provenance, StoredPlaces
    from mlflow_aws_server.sealing import Sealing

    settings = ServerSettings.from_environ(os.environ)
    open_connection = connector(settings.database, settings.database_user)
    identity = IdentitySettings.from_environ(os.environ)
    questions = ConnectionPool(open_connection, connections=1, queue=_QUEUE)
    app: App = _Mlflow(_mlflow_app(), threads=settings.connections.threads)
    app = Frozen(app, questions, identity.roles, ended_runs_by_author=settings.ended_runs_by_author)
    if settings.fast_path:
        from mlflow_aws_server.fastpath import FastPath

        app = FastPath(
            app,
            open_connection,
            connections=settings.connections.fast_path,
            open_reader=connector(settings.reader, settings.database_user) if settings.reader else None,
            reader_connections=settings.connections.reader,
        )
    sealing = Sealing(open_connection, questions, settings.sealing)
    app = _Sealed(app, sealing)
    places = ArtifactPlaces(settings.artifact_root)
    StoredPlaces(places).watch()
    app = Provenance(app, open_connection, questions, sealing, places)
    app = Gate(app, identity, may_lag=settings.reader is not None)
    return Readiness(app, DatabaseCheck(settings))


def _mlflow_app() -> App:
    with warnings.catch_warnings():
        # MLflow no longer uses what is deprecated, but still imports it.
        warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
        from mlflow.server.fastapi_app import app
    mlflow_app: App = app
    return mlflow_app


class _Sealed:
    """The application `app`, with sealing from its start to its end."""

    def __init__(self, app: App, sealing: Sealing) -> None:
        self._app = app
        self._sealing = sealing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_sealing(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._sealing.startup()
            elif message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self._sealing.shutdown()
            await send(message)

        await self._app(scope, receive, send_with_sealing if scope["type"] == "lifespan" else send)


class _Mlflow:
    """MLflow's application, started the way `mlflow server` starts it.

    Its stores are opened before the first request, so that a database MLflow cannot use ends the
    start; and its handlers get only as many threads as its connection pools can serve.
    """

    def __init__(self, app: App, *, threads: int) -> None:
        self._app = app
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            from anyio import to_thread

            # The limit belongs to the event loop, which exists only now.
            to_thread.current_default_thread_limiter().total_tokens = self._threads
            await to_thread.run_sync(_open_stores)
        await self._app(scope, receive, send)


def _open_stores() -> None:
    from mlflow.server.constants import (
        ARTIFACT_ROOT_ENV_VAR,
        BACKEND_STORE_URI_ENV_VAR,
        REGISTRY_STORE_URI_ENV_VAR,
    )
    from mlflow.server.handlers import initialize_backend_stores
    from mlflow.tracing.trace_rollup_service import validate_sql_trace_rollup_startup

    store = os.environ[BACKEND_STORE_URI_ENV_VAR]
    validate_sql_trace_rollup_startup(store)
    initialize_backend_stores(
        store,
        os.environ[REGISTRY_STORE_URI_ENV_VAR],
        os.environ[ARTIFACT_ROOT_ENV_VAR],
    )
