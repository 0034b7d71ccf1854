"""The fast path as an ASGI application around another one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

from mlflow_aws_server.fastpath import bodies, history, reading, runs, search, writing
from mlflow_aws_server.fastpath.bodies import Bodies
from mlflow_aws_server.fastpath.database import Connection, Database, connector
from mlflow_aws_server.fastpath.errors import (
    ContendedError,
    LeaveToStockError,
    OverloadedError,
    SlowBodyError,
    UnavailableError,
)
from mlflow_aws_server.fastpath.schema import schema_obstacle
from mlflow_aws_server.fastpath.settings import FastPathSettings
from mlflow_aws_server.fastpath.stock import (
    App,
    Headers,
    Message,
    Receive,
    ResponseHeaders,
    Scope,
    Send,
    environment_obstacle,
)

_logger = logging.getLogger(__name__)

_PREFIXES = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")
_JSON = (b"content-type", b"application/json")

_RETRY_AFTER_SECONDS = 1
_RECHECK_SECONDS = 15.0
# Callers that may wait for one of the pool's connections. A call takes about a millisecond of a connection.
_QUEUE = 4096

# What is said of tables and columns that are not as they were.
_ANOTHER_SCHEMA = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidCachedStatementError,
)

Handler = Callable[[Database, bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    handler: Handler


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
ROUTES = {
    prefix + path: _Route(method, handler)
    for prefix in _PREFIXES
    for path, (method, handler) in _HANDLERS.items()
}


class FastPath:
    """Answers the calls that training loops and the UI make most, and leaves all others to `app`.

    Until the database was seen to have a schema this code was tested with, and whenever it has not, and
    for every request that is not fully understood, `app` (stock MLflow) gets the request untouched.
    """

    def __init__(
        self,
        app: App,
        settings: FastPathSettings,
        *,
        open_connection: Callable[[], Awaitable[Connection]] | None = None,
    ) -> None:
        """`open_connection` replaces the way to the database that `settings` describe (in tests)."""
        self._app = app
        self._settings = settings
        self._open_connection = open_connection
        self._database: Database | None = None
        self._headers: ResponseHeaders | None = None
        self._serving = False
        self._obstacle: str | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._bodies = Bodies()

    @property
    def serving(self) -> bool:
        """Whether calls are answered here; otherwise all go to the application behind."""
        return self._serving

    async def startup(self) -> None:
        """Connect and look at the schema; a database out of reach is tried again in the background."""
        if not self._settings.fast_path:
            _logger.info("fast path: switched off; stock MLflow serves every request")
            return
        if (obstacle := environment_obstacle()) is not None:
            self._step_aside(obstacle)
            return
        self._headers = ResponseHeaders(self._app)
        self._database = Database(
            self._open_connection or connector(self._settings),
            connections=self._settings.connections.fast_path,
            queue=_QUEUE,
        )
        await self._look_at_schema(self._database)
        self._watcher = asyncio.create_task(self._watch(self._database))

    async def shutdown(self) -> None:
        """Close the database connections."""
        self._serving = False
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self._database is not None:
            await self._database.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            if self._serving:
                route = ROUTES.get(scope["path"])
                if route is not None and route.method == scope["method"]:
                    await self._serve(route, scope, receive, send)
                    return
        elif scope["type"] == "lifespan":
            send = self._with_lifespan(send)
        await self._app(scope, receive, send)

    def _with_lifespan(self, send: Send) -> Send:
        async def send_with_ours(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.startup()
            elif message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self.shutdown()
            await send(message)

        return send_with_ours

    async def _serve(self, route: _Route, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._headers is not None  # noqa: S101 - set before serving starts
        request = _headers_of_interest(scope)
        if request is None:
            await self._app(scope, receive, send)
            return
        host, origin, length = request
        headers = await self._headers.to(host=host, origin=origin, method=route.method)
        if headers is None:
            await self._app(scope, receive, send)
            return
        if route.method == "GET":
            await self._answer(route, scope["query_string"], None, headers, scope, receive, send)
            return
        if length is None or length > bodies.LARGEST:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._bodies.read(receive, length)
        except OverloadedError as error:
            await _refuse(send, headers, status=429, code="RESOURCE_EXHAUSTED", message=str(error))
            return
        except SlowBodyError as error:
            await _refuse(send, headers, status=408, code="REQUEST_LIMIT_EXCEEDED", message=str(error))
            return
        if body is None:
            return
        try:
            await self._answer(route, body, body, headers, scope, receive, send)
        finally:
            self._bodies.release(body)

    async def _answer(
        self,
        route: _Route,
        question: bytes,
        body: bytes | None,
        headers: Headers,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        assert self._database is not None  # noqa: S101 - set before serving starts
        try:
            answer = await route.handler(self._database, question)
        except OverloadedError as error:
            await _refuse(send, headers, status=429, code="RESOURCE_EXHAUSTED", message=str(error))
            return
        except UnavailableError as error:
            _logger.error("%s: the database cannot be reached: %s", scope["path"], error)
            message = "The database cannot be reached at the moment."
            await _refuse(send, headers, status=503, code="TEMPORARILY_UNAVAILABLE", message=message)
            return
        except ContendedError as error:
            _logger.error("%s: %s", scope["path"], error)
            message = "Other calls keep changing the same data. Nothing was written; send the call again."
            await _refuse(send, headers, status=503, code="TEMPORARILY_UNAVAILABLE", message=message)
            return
        except LeaveToStockError as reason:
            _logger.debug("%s left to stock MLflow: %s", scope["path"], reason)
        except _ANOTHER_SCHEMA as error:
            self._step_aside(f"the database refused a statement ({error})")
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # The statement as a whole took no effect.
            _logger.info("%s left to stock MLflow: %r", scope["path"], error)
        except Exception:
            # A mistake of ours shall cost speed, not the answer.
            _logger.exception("%s left to stock MLflow after an unexpected error", scope["path"])
        else:
            start = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(answer)),
                *headers,
            ]
            await send({"type": "http.response.start", "status": 200, "headers": start})
            await send({"type": "http.response.body", "body": answer})
            return
        if body is None:
            await self._app(scope, receive, send)
        else:
            await self._bodies.leave_to(self._app, body, scope, receive, send)

    def _step_aside(self, reason: str) -> None:
        self._serving = False
        if reason != self._obstacle:
            self._obstacle = reason
            _logger.warning("fast path: stepping aside, stock MLflow serves every request: %s", reason)

    async def _look_at_schema(self, database: Database) -> None:
        try:
            obstacle = await database.run(schema_obstacle)
        except (UnavailableError, OverloadedError, ContendedError) as error:
            if self._serving:
                # Callers are told to come back, which is better than what stock does then.
                return
            obstacle = f"the database cannot be reached ({error})"
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            obstacle = f"the schema version cannot be read ({error})"
        if obstacle is not None:
            self._step_aside(obstacle)
        elif not self._serving:
            self._obstacle = None
            self._serving = True
            _logger.info("fast path: serving %d routes", len(ROUTES))

    async def _watch(self, database: Database) -> None:
        """Look at the schema again and again: a migration may come, or what kept us from serving may end."""
        while True:
            await asyncio.sleep(_RECHECK_SECONDS)
            try:
                await self._look_at_schema(database)
            except Exception:
                _logger.exception("fast path: looking at the schema failed unexpectedly")


def _headers_of_interest(scope: Scope) -> tuple[bytes, bytes | None, int | None] | None:
    """Host, Origin and content length, or None for a request that only stock understands."""
    if scope.get("root_path"):
        return None
    host: bytes | None = None
    origin: bytes | None = None
    length: int | None = None
    is_json = scope["method"] != "POST"
    for name, value in scope["headers"]:
        if name == b"host":
            if host is not None:
                return None
            host = value
        elif name == b"content-length":
            if length is not None or not value.isdigit():
                return None
            length = int(value)
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
    if length and scope["method"] == "GET":
        return None
    return host, origin, length


_ONLY_STOCK_UNDERSTANDS = frozenset((b"transfer-encoding", b"content-encoding", b"x-mlflow-workspace"))


async def _refuse(send: Send, headers: Headers, *, status: int, code: str, message: str) -> None:
    """Ask the client to come back: MLflow's client does, for these statuses."""
    body = json.dumps({"error_code": code, "message": message}).encode("ascii")
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                _JSON,
                (b"content-length", b"%d" % len(body)),
                (b"retry-after", b"%d" % _RETRY_AFTER_SECONDS),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
