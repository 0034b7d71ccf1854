"""Stock MLflow's application: its start, its threads, and what of its answers reaches a client."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

from mlflow_aws_server.asgi import App, Message, Receive, Scope, Send, StalledReaderError, in_slices, refuse
from mlflow_aws_server.errors import OverloadedError
from mlflow_aws_server.limits import TRACE_BYTES, WAITING_FOR_A_THREAD, LimitError
from mlflow_aws_server.shares import CALLER, Turns

_log = logging.getLogger(__name__)


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
    start; and its handlers get only as many threads as its connection pools can serve. No principal
    has more than half of them at a time.
    """

    def __init__(self, app: App, *, threads: int) -> None:
        self._app = app
        self._threads = threads
        self._turns = Turns(
            "one of MLflow's threads",
            places=threads,
            each=(threads + 1) // 2,
            queue=WAITING_FOR_A_THREAD.most,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            await self._in_turn(scope, receive, send)
            return
        if scope["type"] == "lifespan":
            from anyio import to_thread

            # The limit belongs to the event loop, which exists only now.
            to_thread.current_default_thread_limiter().total_tokens = self._threads
            await to_thread.run_sync(_open_stores)
        await self._app(scope, receive, send)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold a place from the body's end to the answer's beginning: as long as a thread works for it."""
        received: list[Message] = []
        while not received or received[-1].get("more_body", False):
            received.append(await receive())
        if received[-1]["type"] != "http.request":
            return
        who = CALLER.get()
        try:
            await self._turns.enter(who)
        except OverloadedError as refusal:
            await refuse(send, refusal)
            return
        holds = True
        received.reverse()
        # MLflow holds the whole of an answer until it is sent.
        send_on = in_slices(send)

        def leave() -> None:
            nonlocal holds
            if holds:
                holds = False
                self._turns.leave(who)

        async def receive_again() -> Message:
            return received.pop() if received else await receive()

        async def send_and_leave(message: Message) -> None:
            leave()
            await send_on(message)

        try:
            await self._app(scope, receive_again, send_and_leave)
        except* StalledReaderError as error:
            _log.info("an answer of MLflow breaks off: %s", error.exceptions[0])
        finally:
            leave()


def _read_no_large_objects() -> None:
    """Let the sessions of boto3 that MLflow uses, all of them the default one, read small objects only."""
    import boto3

    boto3.setup_default_session()
    for operation in ("GetObject", "HeadObject"):
        boto3.DEFAULT_SESSION.events.register(f"after-call.s3.{operation}", _refuse_large)


def _refuse_large(parsed: dict[str, Any], **_: Any) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    try:
        TRACE_BYTES.check(parsed.get("ContentLength") or 0)
    except LimitError as error:
        raise MlflowException(error.message, error_code=INVALID_PARAMETER_VALUE) from error


def _open_stores() -> None:
    _read_no_large_objects()
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
