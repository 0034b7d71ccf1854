"""An event bus that may hang, MLflow with provenance in this process, and servers that a test kills."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from local.parts.http_server import JsonHandler, serving
from tests.server.fastpath.conftest import new_mlflow_database, tested_mlflow
from tests.server.sealing.conftest import own

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.server.provenance.harness import Server

__all__ = ["new_mlflow_database", "own", "tested_mlflow"]

ARN = "arn:aws:events:eu-central-1:123456789012:event-bus/Bus"


@dataclass
class Bus:
    """PutEvents over HTTP: keeps what it takes, in order, or asks in vain."""

    hangs: bool = False
    entries: list[dict[str, Any]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    environ: dict[str, str] = field(default_factory=dict)

    def details(self, kind: str = "") -> list[dict[str, Any]]:
        """The details of the events of one type, or of all."""
        return [json.loads(each["Detail"]) for each in self.entries if each["DetailType"].startswith(kind)]


@pytest.fixture
def buses() -> Iterator[Callable[..., Bus]]:
    """Makes buses, which servers reach with `environ`."""
    release = threading.Event()
    stack: list[Any] = []

    def make(*, hangs: bool = False) -> Bus:
        bus = Bus(hangs)

        class Handler(JsonHandler):
            def do_POST(self) -> None:
                entries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["Entries"]
                bus.asked.set()
                if bus.hangs:
                    release.wait(120)
                    return
                bus.entries += entries
                answers = [{"EventId": str(uuid.uuid4())} for _ in entries]
                self.answer(200, {"FailedEntryCount": 0, "Entries": answers})

        context = serving(Handler)
        bus.environ = {
            "MLFLOW_AWS_EVENT_BUS_ARN": ARN,
            "AWS_ENDPOINT_URL_EVENTBRIDGE": f"http://127.0.0.1:{context.__enter__()}",
        }
        stack.append(context)
        return bus

    yield make
    release.set()
    for context in stack:
        context.__exit__(None, None, None)


@pytest.fixture(scope="package")
def server(rds: RdsLike, new_mlflow_database: Callable[[], str], tested_mlflow: None) -> Iterator[Server]:
    """Provenance, the fast path and MLflow, which keeps its events."""
    from mlflow_aws_server.events.outbox import OUTBOX

    from tests.server.provenance.harness import serving as provenance

    loop = asyncio.new_event_loop()
    socket = str(rds.postgres.socket_directory)
    OUTBOX.keep()
    with provenance(new_mlflow_database(), socket=socket, port=rds.port, loop=loop) as made:
        yield made
    OUTBOX.ignore()
    loop.close()
