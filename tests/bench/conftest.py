"""A minimal tracking server on a loopback port that misbehaves as a test asks."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import parse_qs

import pytest
import uvicorn

from bench.corpus import Corpus, seeded
from bench.wire import Wire


@dataclass
class TinyServer:
    """What it has received, and how it shall misbehave."""

    port: int = 0
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    authorization: set[str | None] = field(default_factory=set)
    points: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    deleted: list[str] = field(default_factory=list)
    # Responses to give before it behaves again: (status, headers).
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    forgets: bool = False
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def wire(self) -> Wire:
        return Wire.to(self.url)

    def calls(self, name: str) -> list[dict[str, Any]]:
        """The bodies (or queries) of the calls whose path ends in `name`."""
        return [body for path, body in self.seen if path.endswith(name)]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        content = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            content += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = dict(scope["headers"])
        self.authorization.add(headers[b"authorization"].decode() if b"authorization" in headers else None)
        query = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
        body = json.loads(content) if content else query
        self.seen.append((scope["path"], body))
        status, extra = self.failures.pop(0) if self.failures else (200, {})
        answer = json.dumps(self._answer(scope["path"], body) if status == 200 else {}).encode()
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-length", str(len(answer)).encode()),
                    *((name.encode(), value.encode()) for name, value in extra.items()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        name = path.rsplit("/mlflow/", 1)[-1]
        if name == "experiments/create":
            return {"experiment_id": str(next(self._numbers))}
        if name == "experiments/delete":
            self.deleted.append(body["experiment_id"])
        if name == "runs/create":
            return {"run": {"info": {"run_id": f"{next(self._numbers):032x}"}}}
        if name == "runs/log-batch" and not self.forgets:
            for metric in body.get("metrics", []):
                self.points[body["run_id"], metric["key"]].append(metric)
        if name == "metrics/get-history":
            return {"metrics": self.points[body["run_id"], body["metric_key"]]}
        return {}


@pytest.fixture
def tiny() -> Iterator[TinyServer]:
    """A running TinyServer."""
    app = TinyServer()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    app.port = server.servers[0].sockets[0].getsockname()[1]
    yield app
    # No test needs its connections closed in good order, which takes a tenth of a second.
    server.should_exit = server.force_exit = True
    thread.join(10)


@pytest.fixture
def corpus() -> Corpus:
    """Names of a few runs."""
    return seeded(written=3, small=5, with_history=2)
