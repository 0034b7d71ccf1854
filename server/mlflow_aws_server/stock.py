"""Stock MLflow's application: its start, its threads, and what of its answers reaches a client."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import secrets
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from graphql import GraphQLError
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from mlflow_aws_server.asgi import (
    App,
    Message,
    Receive,
    Scope,
    Send,
    StalledReaderError,
    in_slices,
    refuse,
    replay,
    whole,
)
from mlflow_aws_server.database.admission import STATE, SchemaRefusedError
from mlflow_aws_server.errors import OverloadedError
from mlflow_aws_server.limits import (
    BODY,
    NESTING,
    PAGE,
    SMALL_BODY,
    TRACE_BYTES,
    WAITING_FOR_A_THREAD,
    LimitError,
)
from mlflow_aws_server.metrics import METRICS
from mlflow_aws_server.shares import CALLER, Turns

_log = logging.getLogger(__name__)
_TRACES = "/v1/traces"

_UNREACHABLE = "TEMPORARILY_UNAVAILABLE"
# Longer than a failover, shorter than the load balancer's patience with a new task.
_LONGEST_OUTAGE_SECONDS = 120.0
_BETWEEN_ATTEMPTS_SECONDS = 1.0

# What MLflow's handlers raise where a value is not what they take it for.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, SystemError, GraphQLError)


def mlflow_app() -> App:
    """MLflow's own ASGI application."""
    with warnings.catch_warnings():
        # MLflow no longer uses what is deprecated, but still imports it.
        warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
        from mlflow.server import app as flask_app
        from mlflow.server.fastapi_app import app
    # MLflow parses some strings as JSON again, whose levels nobody has counted.
    flask_app.register_error_handler(RecursionError, _too_deep)
    for kind in (*_UNREADABLE, MlflowException):
        flask_app.register_error_handler(kind, _refusal)
    imported: App = app
    return imported


def _too_deep(_: RecursionError) -> tuple[dict[str, str], int]:
    return {"error_code": NESTING.code, "message": "JSON in this request is nested too deeply."}, 400


def _refusal(error: Exception) -> tuple[dict[str, str], int]:
    """The answer to what MLflow itself would answer with 500 and HTML, which its client sends again."""
    if isinstance(error, MlflowException):
        return {"error_code": error.error_code, "message": error.message}, error.get_http_status_code()
    reference = secrets.token_hex(4)
    _log.warning("a request could not be read, reference %s", reference, exc_info=error)
    message = f"MLflow cannot read a value of this request. Reference: {reference}."
    return {"error_code": "INVALID_PARAMETER_VALUE", "message": message}, 400


class StockMlflow:
    """MLflow's application, started the way `mlflow server` starts it.

    Its stores are opened before the first request, so that a database MLflow cannot use ends the
    start; and its handlers get only as many threads as its connection pools can serve. No principal
    has more than half of them at a time.
    """

    def __init__(self, app: App, *, threads: int) -> None:
        self._app = app
        self._threads = threads
        # In the order in which they are waited for. MLflow needs ten times a body's size in memory.
        self._turns = (
            (BODY.most, self._line("MLflow to be through with a huge body", places=1)),
            (SMALL_BODY, self._line("MLflow to be through with a large body", places=2)),
            (-1, self._line("one of MLflow's threads", places=threads)),
        )
        self._traces = ThreadPoolExecutor(threads, thread_name_prefix="traces")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            await self._in_turn(scope, receive, send)
            return
        if scope["type"] == "lifespan":
            from anyio import to_thread

            # The limit belongs to the event loop, which exists only now.
            to_thread.current_default_thread_limiter().total_tokens = self._threads
            _search_versions_in_pages()
            await _opened()
        await self._app(scope, receive, send)

    @staticmethod
    def _line(what: str, *, places: int) -> Turns:
        return Turns(what, places=places, each=(places + 1) // 2, queue=WAITING_FOR_A_THREAD.most)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold a place from the body's end to the answer's beginning: as long as a thread works for it."""
        body = await whole(receive)
        if body is None:
            return
        who = CALLER.get()
        # MLflow holds the whole of an answer until it is sent.
        send_on = in_slices(send)
        held: list[Turns] = []

        def leave() -> None:
            while held:
                held.pop().leave(who)

        async def send_and_leave(message: Message) -> None:
            leave()
            if message.get("status") == SchemaRefusedError.status and STATE.refusing:
                come_back = (b"retry-after", b"%d" % STATE.retry_after)
                message = {**message, "headers": [*message["headers"], come_back]}
            await send_on(message)

        try:
            try:
                for least, turns in self._turns:
                    if len(body) > least:
                        await METRICS.wait(turns.enter(who))
                        held.append(turns)
            except OverloadedError as refusal:
                await refuse(send, refusal)
                return
            serve = self._apart if scope["path"] == _TRACES else self._app
            await serve(scope, replay(body, receive), send_and_leave)
        except* StalledReaderError as error:
            _log.info("an answer of MLflow breaks off: %s", error.exceptions[0])
        finally:
            leave()

    async def _apart(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that MLflow works on, for seconds, in the event loop that calls it."""
        first = await receive()
        messages: list[Message] = []

        async def receive_there() -> Message:
            nonlocal first
            message, first = first, {}
            if not message:
                await asyncio.Event().wait()
            return message

        async def keep(message: Message) -> None:
            messages.append(message)

        async def serve() -> None:
            await self._app(scope, receive_there, keep)

        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._traces, context.run, lambda: asyncio.run(serve()))
        for message in messages:
            await send(message)


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


async def _opened() -> None:
    """Open the stores; a database out of reach is waited for, or a worker's end would end all workers."""
    from anyio import to_thread

    deadline = asyncio.get_running_loop().time() + _LONGEST_OUTAGE_SECONDS
    while True:
        try:
            await to_thread.run_sync(_open_stores)
        except (MlflowException, OperationalError) as error:
            unreachable = not isinstance(error, MlflowException) or error.error_code == _UNREACHABLE
            if not unreachable or asyncio.get_running_loop().time() > deadline:
                raise
            _log.warning("the start waits for the database: %s", error)
            await asyncio.sleep(_BETWEEN_ATTEMPTS_SECONDS)
        else:
            return


def _search_versions_in_pages() -> None:
    """Let no page of model versions be longer than others: asked without a size, MLflow answers 200,000."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    search = SqlAlchemyStore.search_model_versions

    def in_pages(store: Any, *, max_results: int = PAGE.most, **question: Any) -> Any:
        return search(store, max_results=min(max_results, PAGE.most), **question)

    SqlAlchemyStore.search_model_versions = in_pages


def _open_stores() -> None:
    _read_no_large_objects()
    import mlflow.store.db.utils

    # Each session was let in because its schema serves this MLflow, which may be an older one.
    mlflow.store.db.utils._verify_schema = lambda _engine: None
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
