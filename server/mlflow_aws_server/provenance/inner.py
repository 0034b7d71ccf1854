"""Requests that the server makes to itself, on behalf of a caller."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mlflow_aws_server.asgi import JSON, App, Message, Receive, Scope, Send, replay
from mlflow_aws_server.provenance import documents

_PREFIX = "/api/2.0/mlflow/"
_KEPT = frozenset((b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-port"))


@dataclass(frozen=True, slots=True)
class BufferedResponse:
    """An application's response, not yet sent."""

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

    def without_content(self) -> BufferedResponse:
        """The same response if it is an error; otherwise an empty JSON object."""
        if self.status != 200:
            return self
        headers = [(b"content-type", JSON), (b"content-length", b"2")]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        return BufferedResponse((start, {"type": "http.response.body", "body": b"{}"}))

    async def pass_to(self, send: Send) -> None:
        """Send it to the caller."""
        for message in self.messages:
            await send(message)


async def get(app: App, scope: Scope, path: str, **arguments: str) -> BufferedResponse:
    """GET one of MLflow's resources; `scope` is the caller's."""
    return await _call(app, scope, "GET", path, query=urlencode(arguments).encode("ascii"), body=b"")


async def post(app: App, scope: Scope, path: str, document: dict[str, Any]) -> BufferedResponse:
    """POST to one of MLflow's resources; `scope` is the caller's."""
    return await _call(app, scope, "POST", path, query=b"", body=documents.write(document))


async def response_to(app: App, scope: Scope, receive: Receive) -> BufferedResponse:
    """The application's response to the caller's own request."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    return BufferedResponse(tuple(messages))


async def _call(
    app: App, scope: Scope, method: str, path: str, *, query: bytes, body: bytes
) -> BufferedResponse:
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
    return await response_to(app, own, replay(body))
