"""The ASGI application: readiness, then the fast path, then stock MLflow.

`mlflow server --app-name mlflow-aws` finds `create_app` by the entry point group `mlflow.app`.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from mlflow_aws_server.readiness import App, Readiness, Receive, Scope, Send
from mlflow_aws_server.settings import ServerSettings

_FAST_PATH = "mlflow_aws_server.fastpath"


def create_app() -> App:
    """Build the application of one worker process, configured by the environment.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    # Imported here: `mlflow server` imports this module in the parent process too, only to look at it.
    from mlflow.server.fastapi_app import app as mlflow_app

    from mlflow_aws_server.database_check import DatabaseCheck

    settings = ServerSettings.from_environ(os.environ)
    app: App = _LimitThreads(mlflow_app, threads=settings.connections.threads)
    if settings.fast_path and importlib.util.find_spec(_FAST_PATH) is not None:
        fast_path: Any = importlib.import_module(_FAST_PATH)
        app = fast_path.FastPath(app, settings)
    return Readiness(app, DatabaseCheck(settings))


class _LimitThreads:
    """Lets MLflow's handlers use only as many threads as its connection pools can serve."""

    def __init__(self, app: App, *, threads: int) -> None:
        self._app = app
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            from anyio import to_thread

            # The limit belongs to the event loop, which exists only now.
            to_thread.current_default_thread_limiter().total_tokens = self._threads
        await self._app(scope, receive, send)
