"""The fast path as an ASGI application around another one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

import asyncpg

from mlflow_aws_server.asgi import (
    JSON,
    MAY_LAG,
    App,
    Header,
    Message,
    Receive,
    Scope,
    Send,
    refuse,
    replay,
    respond,
    whole,
)
from mlflow_aws_server.database.connect import OpenConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.errors import RefusedError
from mlflow_aws_server.fast_path_state import FastPathState
from mlflow_aws_server.fastpath import history, reading, runs, search, writing
from mlflow_aws_server.fastpath.errors import LeaveToStockError
from mlflow_aws_server.fastpath.reader import Handler, Reader
from mlflow_aws_server.fastpath.schema import schema_obstacle
from mlflow_aws_server.fastpath.stock import ResponseHeaders, environment_obstacle
from mlflow_aws_server.limits import QUESTION_TIME, OutOfTimeError
from mlflow_aws_server.metrics import METRICS
from mlflow_aws_server.shares import CALLER, Turns

_logger = logging.getLogger(__name__)

_PREFIXES = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")
_RECHECK_SECONDS = 15.0
# How many callers may wait for a connection. A call needs one for about a millisecond.
_QUEUE = 4096

# What PostgreSQL answers once tables or columns are not as they were.
_SCHEMA_CHANGED_ERRORS = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidCachedStatementError,
)


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    handler: Handler
    may_lag: bool = False


_HANDLERS: dict[str, tuple[str, Handler]] = {
    "runs/log-batch": ("POST", writing.log_batch),
    "runs/log-metric": ("POST", writing.log_metric),
    "runs/log-parameter": ("POST", writing.log_param),
    "runs/set-tag": ("POST", writing.set_tag),
    "runs/get": ("GET", reading.get_run),
    "runs/create": ("POST", runs.CreateRun()),
    "runs/update": ("POST", runs.update_run),
    "runs/search": ("POST", search.search_runs),
    "metrics/get-history": ("GET", history.history),
    "metrics/get-history-bulk-interval": ("GET", history.bulk_interval),
}
# Lists and charts. A run's own page is not among them: who opens it may just have been told of it.
_MAY_LAG = frozenset(("runs/search", "metrics/get-history", "metrics/get-history-bulk-interval"))
ROUTES = {
    prefix + path: _Route(method, handler, may_lag=path in _MAY_LAG)
    for prefix in _PREFIXES
    for path, (method, handler) in _HANDLERS.items()
}


class FastPath:
    """Answers the calls that training loops and the UI make most, and leaves all others to `app`.

    `app` (stock MLflow) gets every request that is not fully understood, untouched; and all requests
    unless the database is known to have a schema that this code was tested with.
    """

    def __init__(
        self,
        app: App,
        open_connection: OpenConnection,
        *,
        connections: int,
        open_reader: OpenConnection | None = None,
        reader_connections: int = 0,
        state: FastPathState | None = None,
    ) -> None:
        """`open_connection` opens one database connection; at most `connections` are open at a time.

        `open_reader` does so to a reader, of which there are at most `reader_connections`. `state` is kept up
        to date.
        """
        self._app = app
        self._open_connection = open_connection
        self._connections = connections
        self._pool: ConnectionPool | None = None
        self._reader: Reader | None = None
        if open_reader is not None:
            self._reader = Reader(open_reader, connections=reader_connections, queue=_QUEUE)
        self._headers: ResponseHeaders | None = None
        self._state = state or FastPathState()
        self._watcher: asyncio.Task[None] | None = None
        # A list or a chart can take long: some connections are for writing alone.
        places = max(1, connections * 3 // 4)
        self._lists = Turns(
            "a database connection for lists", places=places, each=(places + 1) // 2, queue=_QUEUE
        )

    @property
    def serving(self) -> bool:
        """Whether calls are answered here; otherwise all go to the application behind."""
        return self._state.serving

    async def startup(self) -> None:
        """Connect and check the schema; an unreachable database is tried again in the background."""
        if (obstacle := environment_obstacle()) is not None:
            self._state.step_aside(obstacle)
            return
        self._headers = ResponseHeaders(self._app)
        self._pool = ConnectionPool(self._open_connection, connections=self._connections, queue=_QUEUE)
        await self._check_schema(self._pool)
        self._watcher = asyncio.create_task(self._watch(self._pool))

    async def shutdown(self) -> None:
        """Close the database connections."""
        self._state.serving = False
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self._pool is not None:
            await self._pool.close()
        if self._reader is not None:
            await self._reader.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            if self._state.serving:
                route = ROUTES.get(scope["path"])
                if route is not None and route.method == scope["method"]:
                    await self._serve(route, scope, receive, send)
                    return
        elif scope["type"] == "lifespan":
            send = self._with_lifespan(send)
        await self._app(scope, receive, send)

    def _with_lifespan(self, send: Send) -> Send:
        async def send_with_lifespan(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.startup()
            elif message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self.shutdown()
            await send(message)

        return send_with_lifespan

    async def _serve(self, route: _Route, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._headers is not None  # noqa: S101 - set before serving starts
        request = _relevant_headers(scope)
        if request is None:
            self._left("headers that only stock understands")
            await self._app(scope, receive, send)
            return
        host, origin = request
        headers = await self._headers.to(host=host, origin=origin, method=route.method)
        if headers is None:
            self._left("a host or an origin that stock refuses")
            await self._app(scope, receive, send)
            return
        if route.method == "GET":
            await self._answer(route, scope["query_string"], None, headers, scope, receive, send)
            return
        body = await whole(receive)
        if body is not None:
            await self._answer(route, body, body, headers, scope, receive, send)

    async def _answer(
        self,
        route: _Route,
        question: bytes,
        body: bytes | None,
        headers: list[Header],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            answer = await self._ask(route, question, may_lag=scope.get(MAY_LAG, False))
        except OutOfTimeError as refusal:
            # A list or chart takes as long the next time.
            await refuse(send, OutOfTimeError(QUESTION_TIME) if route.may_lag else refusal, headers)
            return
        except RefusedError as refusal:
            if refusal.__cause__ is not None:
                _logger.error("%s: %s: %r", scope["path"], refusal.message, refusal.__cause__)
            await refuse(send, refusal, headers)
            return
        except LeaveToStockError as reason:
            self._left(str(reason))
            _logger.debug("%s left to stock MLflow: %s", scope["path"], reason)
        except _SCHEMA_CHANGED_ERRORS as error:
            _logger.warning("%s left to stock MLflow: %r", scope["path"], error)
            self._state.step_aside(f"the database refused a statement ({type(error).__name__})")
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # The statement as a whole took no effect.
            self._left(type(error).__name__)
            _logger.info("%s left to stock MLflow: %r", scope["path"], error)
        except Exception:
            # On an unexpected error, fall back to stock MLflow.
            self._left("an unexpected error")
            _logger.exception("%s left to stock MLflow after an unexpected error", scope["path"])
        else:
            await respond(send, 200, answer, content_type=JSON, headers=headers)
            return
        await self._app(scope, receive if body is None else replay(body, receive), send)

    def _left(self, reason: str) -> None:
        self._state.left[reason] += 1
        METRICS.add("FastPathFallbacks")

    async def _ask(self, route: _Route, question: bytes, *, may_lag: bool) -> bytes:
        assert self._pool is not None  # noqa: S101 - set before serving starts
        if self._reader is not None and may_lag and route.may_lag:
            answer = await self._reader.answer(route.handler, question)
            if answer is not None:
                return answer
        if not route.may_lag:
            return await route.handler(self._pool, question)
        who = CALLER.get()
        await METRICS.wait(self._lists.enter(who))
        try:
            return await route.handler(self._pool, question)
        finally:
            self._lists.leave(who)

    async def _check_schema(self, pool: ConnectionPool) -> None:
        try:
            obstacle = await pool.run(schema_obstacle)
        except RefusedError as error:
            if self._state.serving:
                # Callers are told to try again, which is better than what stock does then.
                return
            obstacle = f"the database cannot be reached ({error.__cause__ or error})"
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            obstacle = f"the schema version cannot be read ({type(error).__name__})"
        if obstacle is not None:
            self._state.step_aside(obstacle)
        else:
            self._state.serve(len(ROUTES))

    async def _watch(self, pool: ConnectionPool) -> None:
        """Check the schema periodically: a migration may run, or the obstacle to serving may go away."""
        while True:
            if self._reader is not None:
                await self._reader.check()
            await asyncio.sleep(_RECHECK_SECONDS)
            try:
                await self._check_schema(pool)
            except Exception:
                _logger.exception("fast path: checking the schema failed unexpectedly")


def _relevant_headers(scope: Scope) -> tuple[bytes, bytes | None] | None:
    """Host and Origin, or None for a request that only stock understands."""
    if scope.get("root_path"):
        return None
    host: bytes | None = None
    origin: bytes | None = None
    has_body = False
    is_json = scope["method"] != "POST"
    for name, value in scope["headers"]:
        if name == b"host":
            if host is not None:
                return None
            host = value
        elif name == b"content-length":
            has_body = value != b"0"
        elif name == b"content-type":
            is_json = value == b"application/json" or value.startswith(b"application/json;")
        elif name == b"origin":
            if origin is not None:
                return None
            origin = value
        elif name in _ONLY_STOCK_UNDERSTANDS:
            return None
    if host is None or not is_json:
        return None
    if has_body and scope["method"] == "GET":
        return None
    return host, origin


_ONLY_STOCK_UNDERSTANDS = frozenset((b"transfer-encoding", b"content-encoding", b"x-mlflow-workspace"))
