"""ASGI as the whole server uses it: types, the caller's key in the scope, bodies and answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from mlflow_aws_server.errors import RefusedError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

PRINCIPAL = "mlflow_aws.principal"
"""Key of the ASGI scope under which everything behind the gate finds the verified `Principal`."""

MAY_LAG = "mlflow_aws.may_lag"
"""Key of the ASGI scope: whether this caller's reads may be some moments old. Never set for a program."""

JSON = b"application/json"
NOT_STORED: Header = (b"cache-control", b"no-store")


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """The values of a header, whose `name` is in lower case; each occurrence counts."""
    return [value for key, value in scope["headers"] if key == name]


def with_length(scope: Scope, length: int) -> Scope:
    """The scope of the same request with a body of `length` bytes."""
    headers = [header for header in scope["headers"] if header[0] != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", b"%d" % length)]}


def replay(body: bytes, receive: Receive | None = None) -> Receive:
    """Receive a body that was already read, then whatever `receive` gives (by default: a disconnect)."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive() if receive is not None else {"type": "http.disconnect"}

    return receive_again


async def respond(
    send: Send, status: int, body: bytes, *, content_type: bytes, headers: Iterable[Header]
) -> None:
    """Send a whole response; `headers` come after content type and length."""
    own = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, refusal: RefusedError, headers: Iterable[Header] = ()) -> None:
    """Answer with an error in MLflow's shape: JSON with `error_code` and `message`."""
    body = json.dumps({"error_code": refusal.code, "message": refusal.message}).encode("ascii")
    own = refusal_headers(refusal)
    await respond(send, refusal.status, body, content_type=JSON, headers=[*own, *headers])


def refusal_headers(refusal: RefusedError) -> list[Header]:
    """What a refusal says in headers, whatever the format of its body."""
    if refusal.retry_after is None:
        return [NOT_STORED]
    return [NOT_STORED, (b"retry-after", b"%d" % refusal.retry_after)]
