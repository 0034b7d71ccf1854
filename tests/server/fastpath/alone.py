"""The fast path on a database of its own, in front of an application that is not MLflow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mlflow_aws_server.database.connect import AsyncConnection, connect_async
from mlflow_aws_server.fastpath import FastPath

from tests.conftest import RdsLike
from tests.server.fastpath.harness import Message

RUN = "0123456789abcdef0123456789abcdef"


@dataclass
class Behind:
    """The application behind: answers everything with its own mark and remembers what it was asked."""

    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body = b""
        while scope["path"] != "/version":
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                self.paths.append(scope["path"])
                self.bodies.append(body)
                break
        status = 200 if scope["path"] == "/version" else 418
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-behind", b"1")]})
        await send({"type": "http.response.body", "body": b"stock"})

    async def _live(self, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        assert message["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})


@dataclass
class Place:
    """A database of this test's own, and how to get there."""

    rds: RdsLike
    name: str
    opened: int = 0

    async def connect(self) -> AsyncConnection:
        self.opened += 1
        socket = str(self.rds.postgres.socket_directory)
        return await connect_async(
            host=socket, port=self.rds.port, user="postgres", database=self.name, ssl=False
        )

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        return self.rds.administer(statement, database=self.name)

    def add_run(self) -> None:
        self.sql(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, lifecycle_stage, experiment_id) "
            f"VALUES ('{RUN}', 'n', 'u', 'RUNNING', 1, 'active', 0)"
        )


@asynccontextmanager
async def serving(place: Place) -> AsyncIterator[tuple[FastPath, Behind]]:
    behind = Behind()
    fast_path = FastPath(behind, place.connect, connections=4)
    await fast_path.startup()
    try:
        yield fast_path, behind
    finally:
        await fast_path.shutdown()
