"""What is deployed behind the gate, in one process: provenance, the fast path and MLflow, on PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock
from urllib.parse import urlencode

from mlflow import MlflowClient
from mlflow.server import handlers
from mlflow.server.fastapi_app import app as mlflow_app
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore
from mlflow_aws_server.database.connect import connect_async
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.fastpath import FastPath
from mlflow_aws_server.provenance import ArtifactPlaces, Provenance, StoredPlaces
from mlflow_aws_server.sealing import Seal
from mlflow_aws_server.sealing.manifest import SEAL_TAG
from mlflow_aws_server.sealing.versions import PROMPT_SOURCES

from tests.nothing_to_seal import NothingToSeal
from tests.server.fastpath.harness import App, Message
from tests.server.fastpath.test_public_client import over_http

ALICE = "arn:aws:iam::123456789012:role/team/alice"
API = "/api/2.0/mlflow"
ROOT = "s3://bucket/root"


@dataclass(frozen=True)
class Principal:
    """What the gate leaves in the scope."""

    name: str = ALICE
    role: str = "approver"
    lane: str = "iam"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code in MLflow's error shape."""
        assert self.json.keys() >= {"error_code", "message"}
        return str(self.json["error_code"])


@dataclass
class Seals(NothingToSeal):
    """Stands for sealing: seals what is promoted at once, without copying anything, all but prompts."""

    pool: ConnectionPool
    asked: list[tuple[str, str]] = field(default_factory=list)
    refusal: Exception | None = None
    """What it says instead of sealing."""

    async def ensure(self, name: str, version: str) -> Seal | None:
        """Seal a version."""
        self.asked.append((name, version))
        if self.refusal is not None:
            raise self.refusal
        where = ("default", name, int(version))

        async def seal(connection: Any) -> Seal | None:
            source = await connection.fetchval(
                "SELECT source FROM model_versions WHERE workspace = $1 AND name = $2 AND version = $3",
                *where,
            )
            if source in PROMPT_SOURCES:
                return None
            made = Seal(at="", bucket="bucket", prefix="sealed", manifest="sealed.manifest.json",
                        sha256=seal_of(name, version), files=1, bytes=1, source=source)  # fmt: skip
            await connection.execute(
                "INSERT INTO model_version_tags (workspace, name, version, key, value)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                *where,
                SEAL_TAG,
                made.write(),
            )
            return made

        return await self.pool.run(seal)


def seal_of(name: str, version: str) -> str:
    """The digest with which `Seals` seals a version."""
    return hashlib.sha256(f"{name}/{version}".encode()).hexdigest()


@dataclass
class Server:
    """One server over a database; `another` makes a second one that shares nothing else with it."""

    database: str
    socket: str
    port: int
    loop: asyncio.AbstractEventLoop
    app: App
    fast_path: FastPath
    seals: Seals
    served: list[str] = field(default_factory=list)
    """The paths that reached MLflow itself."""

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        principal: Principal | None = Principal(),
        query: str = "",
    ) -> Answer:
        """Send one request, as `principal`."""
        return self.loop.run_until_complete(
            self.call(method, path, body, raw=raw, headers=headers, principal=principal, query=query)
        )

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        principal: Principal | None = Principal(),
        query: str = "",
    ) -> Answer:
        """Send one request, as `principal`; a path without a slash in front is one of the API's."""
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        if not path.startswith("/"):
            path = f"{API}/{path}"
        given = {"host": "localhost", "content-type": "application/json", "content-length": str(len(content))}
        given |= headers or {}
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
            "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 5000),
            "state": {},
        }
        if principal is not None:
            scope["mlflow_aws.principal"] = principal
        incoming: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]
        outgoing: list[Message] = []

        async def receive() -> Message:
            if incoming:
                return incoming.pop(0)
            await asyncio.sleep(3600)
            raise AssertionError("unreachable")

        async def send(message: Message) -> None:
            outgoing.append(message)

        await self.app(scope, receive, send)
        start, *rest = outgoing
        return Answer(
            status=start["status"],
            headers={bytes(name): bytes(value) for name, value in start["headers"]},
            body=b"".join(m.get("body", b"") for m in rest),
        )

    def post(self, path: str, body: object, **request: Any) -> Any:
        """POST and expect success."""
        answer = self.send("POST", path, body, **request)
        assert answer.status == 200, answer.body
        return answer.json

    def new_run(self, **fields: object) -> str:
        """Create a run and return its id."""
        made = self.post("runs/create", {"experiment_id": "0", "start_time": 1, **fields})
        return str(made["run"]["info"]["run_id"])

    def new_model(self, name: str, *, versions: int) -> str:
        """Register a model with so many versions and return its name."""
        self.post("registered-models/create", {"name": name})
        for _ in range(versions):
            self.post("model-versions/create", {"name": name, "source": "s3://bucket/root/model"})
        return name

    def tags_of_run(self, run: str) -> dict[str, str]:
        """The tags of a run."""
        answer = self.send("GET", "runs/get", query=f"run_id={run}")
        return _tags(answer.json["run"]["data"])

    def version(self, model: str, version: str) -> Any:
        """One version of a model."""
        return self.send("GET", "model-versions/get", query=f"name={model}&version={version}").json[
            "model_version"
        ]

    def tags_of_version(self, model: str, version: str) -> dict[str, str]:
        """The tags of a version."""
        return _tags(self.version(model, version))

    def versions(self, model: str) -> list[str]:
        """The numbers of a model's versions."""
        query = urlencode({"filter": f"name='{model}'", "max_results": 1000})
        found = self.send("GET", "model-versions/search", query=query).json
        return sorted((str(each["version"]) for each in found.get("model_versions", ())), key=int)

    def tags_of_model(self, model: str) -> dict[str, str]:
        """The tags of a registered model."""
        answer = self.send("GET", "registered-models/get", query=f"name={model}")
        return _tags(answer.json["registered_model"])

    def history(self, model: str, version: str) -> list[dict[str, Any]]:
        """What the server noted about a version, oldest first."""
        tags = self.tags_of_version(model, version)
        return [json.loads(tags[key]) for key in sorted(tags) if key.startswith("mlflow_aws.history.")]

    def sql(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Ask the database itself, past MLflow."""

        async def ask(connection: Any) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await connection.fetch(statement, *arguments)]

        return self.loop.run_until_complete(self.seals.pool.run(ask))

    async def open_connection(self) -> Any:
        """One connection to the database."""
        return await connect_async(
            host=self.socket, port=self.port, user="postgres", database=self.database, ssl=False
        )

    def another(self) -> Server:
        """A second server on the same database."""
        return _server(self.database, socket=self.socket, port=self.port, loop=self.loop)


def entries_of(server: Server, model: str) -> dict[str, str]:
    """All history tags of a model, of its versions and its own, by their keys, as clients can read them."""
    found = server.tags_of_model(model)
    for version in server.versions(model):
        found |= server.tags_of_version(model, version)
    return {key: found[key] for key in sorted(found) if key.startswith("mlflow_aws.history.")}


def chain_of(server: Server, model: str) -> list[dict[str, Any]]:
    """The entries of a model's chain in order; fails if one is missing or was altered."""
    return verified(entries_of(server, model))


def verified(entries: Mapping[str, str]) -> list[dict[str, Any]]:
    """The numbered ones among history tags in order; fails if one is missing or was altered."""
    digests = {key: hashlib.sha256(value.encode()).hexdigest() for key, value in entries.items()}
    told = {key: json.loads(value) for key, value in entries.items()}
    keys = sorted(entries)
    assert len({key[:-5] for key in keys}) == len(keys), "two entries have the same time"
    first = next((place for place, key in enumerate(keys) if "number" in told[key]), len(keys))
    assert all("number" in told[key] for key in keys[first:]), "an entry in the chain has no number"
    # What went with a deleted version, and the digest of the entry before each gap.
    gone: set[int] = set()
    followed: dict[int, str] = {}
    for key in keys[first:]:
        for span in told[key].get("gone", ()):
            followed[span["first"] - 1] = span["before"]
            gone |= set(range(span["first"], span["last"] + 1))
    number, digest = 0, digests[keys[first - 1]] if first else ""
    for key in keys[first:]:
        jumped = False
        while number + 1 in gone and told[key]["number"] != number + 1:
            number, jumped = number + 1, True
        assert told[key]["number"] == number + 1, f"entry {number + 1} is missing"
        assert jumped or told[key]["before"] == digest, f"the entry before {number + 1} was altered"
        number, digest = number + 1, digests[key]
        assert followed.get(number, digest) == digest, f"entry {number} was altered"
    return [told[key] for key in keys[first:]]


@contextmanager
def stock_client(server: Server) -> Iterator[Client]:
    """MLflow's own client, over HTTP, of a server of its own on the same database."""
    principal = [Principal()]
    behind = Provenance(
        FastPath(mlflow_app, server.open_connection, connections=4),
        server.open_connection,
        ConnectionPool(server.open_connection, connections=1, queue=16),
        NothingToSeal(),
        ArtifactPlaces(ROOT),
    )

    async def app(scope: Message, receive: Any, send: Any) -> None:
        scope["mlflow_aws.principal"] = principal[0]
        await behind(scope, receive, send)

    with over_http(app) as url:
        yield Client(url, principal)


class Client(MlflowClient):  # type: ignore[misc]
    """A stock client whose caller can change."""

    def __init__(self, url: str, principal: list[Principal]) -> None:
        super().__init__(url, url)
        self._principal = principal

    def become(self, name: str) -> None:
        """From now on, this is the caller."""
        self._principal[0] = Principal(name)


def _tags(item: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in item.get("tags", ())}


@contextmanager
def serving(database: str, *, socket: str, port: int, loop: asyncio.AbstractEventLoop) -> Iterator[Server]:
    """MLflow on `database`, behind provenance and the fast path."""
    uri = f"postgresql+psycopg2://postgres@/{database}?host={socket}&port={port}"
    tracking, registry = TrackingStore(uri, ROOT), RegistryStore(uri)
    with tracking.engine.begin() as connection:
        # The database is a copy of one that was migrated for another root.
        connection.exec_driver_sql(f"UPDATE experiments SET artifact_location = '{ROOT}/0'")
    with (
        mock.patch.object(handlers, "_tracking_store", tracking),
        mock.patch.object(handlers, "_model_registry_store", registry),
    ):
        stored = StoredPlaces(ArtifactPlaces(ROOT))
        stored.watch()
        server = _server(database, socket=socket, port=port, loop=loop)
        yield server
        loop.run_until_complete(server.fast_path.shutdown())
        stored.ignore()
    tracking.engine.dispose()
    registry.engine.dispose()


def _server(database: str, *, socket: str, port: int, loop: asyncio.AbstractEventLoop) -> Server:
    served: list[str] = []

    async def noted(scope: Message, receive: Any, send: Any) -> None:
        served.append(scope["path"])
        await mlflow_app(scope, receive, send)

    async def open_connection() -> Any:
        return await connect_async(host=socket, port=port, user="postgres", database=database, ssl=False)

    fast_path = FastPath(noted, open_connection, connections=4)
    loop.run_until_complete(fast_path.startup())
    assert fast_path.serving
    questions = ConnectionPool(open_connection, connections=1, queue=16)
    seals = Seals(questions)
    app = Provenance(fast_path, open_connection, questions, seals, ArtifactPlaces(ROOT))
    # On a busy machine no caller should give up; the tests of giving up set their own wait.
    app._promotions._locks._wait_seconds = 50.0
    return Server(database, socket, port, loop, app, fast_path, seals, served)
