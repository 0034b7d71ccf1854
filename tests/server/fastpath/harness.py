"""Stock MLflow and ours side by side: the same calls, each on a database of its own."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock
from urllib.parse import urlencode

import psycopg2
from mlflow.server import handlers
from mlflow.server.fastapi_app import app as mlflow_app
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow_aws_server.database.connect import connect_async
from mlflow_aws_server.fastpath import FastPath
from mlflow_aws_server.fastpath.middleware import ROUTES

Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]

# Every table a call of the fast path may touch, with the columns that two databases can have alike.
TABLES = {
    "experiments": "experiment_id, name, artifact_location, lifecycle_stage, workspace",
    "runs": "run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, "
    "end_time, source_version, lifecycle_stage, artifact_uri, experiment_id",
    "metrics": "*",
    "latest_metrics": "*",
    "params": "*",
    "tags": "*",
    "logged_model_metrics": "*",
    "inputs": "source_type, source_id, destination_type, destination_id, step",
    "input_tags": "name, value",
    "datasets": "experiment_id, name, digest, dataset_source_type, dataset_source",
}

# Not `runs`: all that refers to it would be truncated with it, empty or not, and that takes long.
_EMPTIED = (
    "metrics",
    "latest_metrics",
    "params",
    "tags",
    "logged_model_metrics",
    "input_tags",
    "inputs",
    "datasets",
    "logged_models",
)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Side:
    """One MLflow with its database."""

    name: str
    socket: str
    port: int
    store: SqlAlchemyStore
    app: App
    fast_path: FastPath | None = None
    left_to_stock: int = 0
    _connection: Any = None

    def rows(self) -> dict[str, list[str]]:
        """All rows of all tables, each in an order of their own values."""
        return {
            table: [
                row[0]
                for row in self.sql(f"SELECT (t.*)::text FROM (SELECT {columns} FROM {table}) t ORDER BY 1")
            ]
            for table, columns in TABLES.items()
        }

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement."""
        if self._connection is None:
            self._connection = psycopg2.connect(
                host=self.socket, port=self.port, user="postgres", dbname=self.name
            )
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """Forget all runs and experiments but the first.

        Emptied by TRUNCATE, so that rows lie in the order they come in: neither MLflow nor we ask for one.
        """
        used = [t for t in _EMPTIED if self.sql(f"SELECT 1 FROM {t} LIMIT 1")]
        if used:
            self.sql(f"TRUNCATE {', '.join(used)} CASCADE")
        self.sql(
            "DELETE FROM runs; DELETE FROM experiment_tags; "
            "DELETE FROM experiments WHERE experiment_id <> 0; "
            "UPDATE experiments SET lifecycle_stage = 'active' WHERE lifecycle_stage <> 'active'; "
            "ALTER SEQUENCE experiments_experiment_id_seq RESTART"
        )

    def close(self) -> None:
        """Give the database's connections back."""
        if self._connection is not None:
            self._connection.close()
        self.store.engine.dispose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        body: bytes = b"",
        headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),),
        chunks: int = 1,
    ) -> Answer:
        """Send one request to this side."""
        handlers._tracking_store = self.store
        return await call(self.app, method, path, query=query, body=body, headers=headers, chunks=chunks)


async def call(
    app: App,
    method: str,
    path: str,
    *,
    query: str = "",
    body: bytes = b"",
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),),
    chunks: int = 1,
) -> Answer:
    """Send one request to an ASGI application, its body in so many pieces."""
    sent = [(b"host", b"localhost"), *headers]
    if method == "POST" and not any(name == b"transfer-encoding" for name, _ in sent):
        sent.append((b"content-length", b"%d" % len(body)))
    size = max(1, -(-len(body) // chunks))
    pieces = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
    incoming: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": i < len(pieces) - 1}
        for i, piece in enumerate(pieces)
    ]
    outgoing: list[Message] = []

    async def receive() -> Message:
        if incoming:
            return incoming.pop(0)
        await asyncio.sleep(3600)
        raise AssertionError("unreachable")

    async def send(message: Message) -> None:
        outgoing.append(message)

    scope: Message = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": sent,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 5000),
        "state": {},
    }
    await app(scope, receive, send)
    start = outgoing[0]
    return Answer(
        status=start["status"],
        headers=tuple((bytes(k), bytes(v)) for k, v in start["headers"]),
        body=b"".join(m.get("body", b"") for m in outgoing[1:]),
    )


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Make what MLflow draws by chance (run ids, run names) the same for the same seed."""
    drawn = random.Random(seed)
    random.seed(seed)

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=drawn.getrandbits(128), version=4)

    with mock.patch.object(uuid, "uuid4", uuid4):
        yield


@dataclass
class Pair:
    """Both sides, driven together."""

    stock: Side
    ours: Side
    loop: asyncio.AbstractEventLoop
    calls: int = 0
    stock_may_serve: bool = False
    """Whether this test has calls of ours that stock serves; it says so with a marker of this name."""
    served: int = 0
    left: int = 0

    def same(self, method: str, path: str, **request: Any) -> Answer:
        """Send one request to both sides; answers and headers must be alike to the byte.

        But for one thing: MLflow asks for no order of a run's metrics, params and tags, so PostgreSQL gives
        them as its plan of the day finds them, which differs between two databases with the same rows.
        """
        self.calls += 1
        with repeatable(self.calls):
            expected = self.loop.run_until_complete(self.stock.call(method, path, **request))
        before = self.ours.left_to_stock
        with repeatable(self.calls):
            given = self.loop.run_until_complete(self.ours.call(method, path, **request))
        alike = given.body == expected.body or _in_order(given) == _in_order(expected)
        assert (given.status, alike) == (expected.status, True), (
            f"{method} {path} {request}\n stock: {expected.status} {expected.body!r}\n"
            f"  ours: {given.status} {given.body!r}"
        )
        assert given.headers == expected.headers
        route = ROUTES.get(path)
        if route is not None and route.method == method:
            left = self.ours.left_to_stock - before
            self.served, self.left = self.served + 1 - left, self.left + left
            assert self.stock_may_serve or not left, f"stock served {method} {path} {request}"
        return expected

    def post(self, path: str, body: object, **request: Any) -> Answer:
        """POST a JSON document, to /api/2.0/mlflow/."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.same("POST", f"/api/2.0/mlflow/{path}", body=raw, **request)

    def get(self, path: str, arguments: object, *, prefix: str = "/api/2.0/mlflow/") -> Answer:
        """GET with a query."""
        return self.same("GET", prefix + path, query=urlencode(arguments, doseq=True), headers=())  # type: ignore[arg-type]

    def same_tables(self) -> None:
        """Every row of every table must be alike."""
        expected, given = self.stock.rows(), self.ours.rows()
        for table in TABLES:
            assert given[table] == expected[table], table

    def empty(self) -> None:
        """Start from nothing."""
        self.served = self.left = 0
        self.stock.empty()
        self.ours.empty()

    def new_run(self, **fields: object) -> str:
        """Create a run on both sides; its id is the same on both."""
        answer = self.post("runs/create", {"experiment_id": "0", "start_time": 1, "user_id": "u", **fields})
        assert answer.status == 200, answer.body
        return str(answer.json["run"]["info"]["run_id"])

    def stock_served(self) -> int:
        """How many of our side's calls went on to stock so far."""
        return self.ours.left_to_stock


def _in_order(answer: Answer) -> str:
    """The answer with each run's items in an order of their own; all else (fields, numbers) as written."""
    if answer.status != 200:
        return repr(answer.body)
    document = json.loads(answer.body, parse_float=str)
    for run in [document.get("run"), *document.get("runs", ())]:
        for items in run["data"].values() if run else ():
            items.sort(key=repr)
    return json.dumps(document)


def make_side(name: str, *, socket: str, port: int, loop: asyncio.AbstractEventLoop, ours: bool) -> Side:
    """One MLflow on database `name`; ours with the fast path in front."""
    store = SqlAlchemyStore(
        f"postgresql+psycopg2://postgres@/{name}?host={socket}&port={port}", "s3://bucket/root"
    )
    side = Side(name=name, socket=socket, port=port, store=store, app=mlflow_app)
    if not ours:
        return side

    async def counted(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != "/version":
            side.left_to_stock += 1
        await mlflow_app(scope, receive, send)

    async def open_connection() -> Any:
        return await connect_async(host=socket, port=port, user="postgres", database=name, ssl=False)

    side.fast_path = FastPath(counted, open_connection, connections=4)
    side.app = side.fast_path
    loop.run_until_complete(side.fast_path.startup())
    assert side.fast_path.serving
    return side
