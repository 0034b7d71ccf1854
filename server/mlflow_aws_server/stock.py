"""Stock MLflow's application: its start, its threads, and what of its answers reaches a client."""

from __future__ import annotations

import os
import warnings

from mlflow_aws_server.asgi import App, Receive, Scope, Send


def mlflow_app() -> App:
    """MLflow's own ASGI application."""
    with warnings.catch_warnings():
        # MLflow no longer uses what is deprecated, but still imports it.
        warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
        from mlflow.server.fastapi_app import app
    imported: App = app
    return imported


class StockMlflow:
    """MLflow's application, started the way `mlflow server` starts it.

    Its stores are opened before the first request, so that a database MLflow cannot use ends the
    start; and its handlers get only as many threads as its connection pools can serve.
    """

    def __init__(self, app: App, *, threads: int) -> None:
        self._app = app
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
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
