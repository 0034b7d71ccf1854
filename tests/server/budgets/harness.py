"""Budgets in front of an application that is not MLflow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_aws_server.budgets import Budgets, Heads

Message = MutableMapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def error(self) -> tuple[int, str]:
        """Status and MLflow's error code."""
        return self.status, json.loads(self.body)["error_code"]

    @property
    def message(self) -> str:
        """MLflow's error message."""
        return str(json.loads(self.body)["message"])


@dataclass
class Behind:
    """Answers 200 and remembers what reached it."""

    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[bytes, bytes]] = field(default_factory=list)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        message = await receive()
        assert not message.get("more_body")
        self.bodies.append(message["body"])
        self.headers.append(dict(scope["headers"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


@dataclass
class Guarded:
    """An application behind budgets; `read` counts the bytes of bodies that these took from the client."""

    behind: Any = field(default_factory=Behind)
    read: int = 0

    def __post_init__(self) -> None:
        self.budgets = Budgets(self.behind)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        *,
        headers: Mapping[str, str] | None = None,
        chunked: bool = False,
        unfinished: bool = False,
        query: str = "",
    ) -> Answer:
        """One request; `unfinished` sends no end of the body."""
        pieces = [body] if isinstance(body, bytes) else list(body)
        given = {"host": "localhost", "content-type": "application/json"}
        given |= (
            {"transfer-encoding": "chunked"} if chunked else {"content-length": str(sum(map(len, pieces)))}
        )
        given |= headers or {}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        }

        async def receive() -> Message:
            if not pieces:
                await asyncio.Event().wait()
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": unfinished or bool(pieces)}

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def counted(scope: Message, receive: Any, send: Any) -> None:
            async def receive_and_count() -> Message:
                message: Message = await receive()
                self.read += len(message["body"])
                return message

            await self.budgets(scope, receive_and_count, send)

        # Who sends the rest of a body waits for it to be taken.
        await (counted if unfinished else Heads(counted))(scope, receive, send)
        start, *rest = sent
        return Answer(start["status"], dict(start["headers"]), b"".join(each["body"] for each in rest))
