"""Requests of the server to itself, on behalf of the caller whose request it is working on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mlflow_aws_server.asgi import App, Message, Receive, Scope, Send, replay
from mlflow_aws_server.provenance import documents

_PREFIX = "/api/2.0/mlflow/"
_KEPT = frozenset((b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-port"))


@dataclass(frozen=True, slots=True)
class Answer:
    """An application's answer, held back."""

    messages: tuple[Message, ...]

    @property
    def status(self) -> int:
        """The HTTP status."""
        status: int = self.messages[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    async def pass_to(self, send: Send) -> None:
        """Give it to the caller."""
        for message in self.messages:
            await send(message)


async def ask(app: App, scope: Scope, path: str, **arguments: str) -> Answer:
    """GET one of MLflow's resources; `scope` is the caller's."""
    return await _call(app, scope, "GET", path, query=urlencode(arguments).encode("ascii"), body=b"")


async def tell(app: App, scope: Scope, path: str, document: dict[str, Any]) -> Answer:
    """POST to one of MLflow's resources; `scope` is the caller's."""
    return await _call(app, scope, "POST", path, query=b"", body=documents.write(document))


async def answer_of(app: App, scope: Scope, receive: Receive) -> Answer:
    """The application's answer to the caller's own request."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    return Answer(tuple(messages))


async def _call(app: App, scope: Scope, method: str, path: str, *, query: bytes, body: bytes) -> Answer:
    own = {
        **scope,
        "method": method,
        "path": _PREFIX + path,
        "raw_path": (_PREFIX + path).encode("ascii"),
        "query_string": query,
        "headers": [
            *((name, value) for name, value in scope["headers"] if name in _KEPT),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ],
    }
    return await answer_of(app, own, replay(body))
