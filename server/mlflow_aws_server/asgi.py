"""ASGI as the whole server uses it: types, the caller's key in the scope, bodies and answers."""

from __future__ import annotations

import asyncio
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

ROUTE = "mlflow_aws.route"
"""Key of the ASGI scope: the row of the gate's route table that the request meets."""

MAY_LAG = "mlflow_aws.may_lag"
"""Key of the ASGI scope: whether this caller's reads may be some moments old. Never set for a program."""

STALLED_SECONDS = 30.0
"""How long a client may take nothing of its answer before its connection is closed."""

_SLICE = 64 * 1024

JSON = b"application/json"
NOT_STORED: Header = (b"cache-control", b"no-store")


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """The values of a header, whose `name` is in lower case; each occurrence counts."""
    return [value for key, value in scope["headers"] if key == name]


def with_length(scope: Scope, length: int) -> Scope:
    """The scope of the same request with a body of `length` bytes."""
    headers = [header for header in scope["headers"] if header[0] != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", b"%d" % length)]}


async def whole(receive: Receive) -> bytes | None:
    """A request's body, or None if the client disconnected. `Budgets` have bounded it."""
    message = await receive()
    body = bytes(message.get("body", b""))
    while message["type"] == "http.request" and message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    return body if message["type"] == "http.request" else None


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


class StalledReaderError(Exception):
    """The client takes nothing of its answer."""


def in_slices(send: Send, *, stalled_seconds: float = STALLED_SECONDS) -> Send:
    """Send bodies in slices, so that the rest of an answer is not kept for a client that takes none of it.

    It raises StalledReaderError once a slice has waited for `stalled_seconds`. An application that then ends
    without completing the answer has its connection closed.
    """

    async def send_slice(message: Message) -> None:
        try:
            async with asyncio.timeout(stalled_seconds):
                # uvicorn returns at once, unless the client has not taken what was sent before.
                await send(message)
        except TimeoutError:
            raise StalledReaderError(f"the client took nothing for {stalled_seconds:.0f} s") from None

    async def send_in_slices(message: Message) -> None:
        body = message.get("body", b"")
        while len(body) > _SLICE:
            await send_slice({"type": "http.response.body", "body": body[:_SLICE], "more_body": True})
            body = body[_SLICE:]
        await send_slice({**message, "body": body} if "body" in message else message)

    return send_in_slices


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
