"""What a request may have before its body, judged before anybody asks who sends it."""

from __future__ import annotations

import asyncio
import contextlib

from mlflow_aws_server.asgi import App, Message, Receive, Scope, Send, refuse
from mlflow_aws_server.errors import RefusedError
from mlflow_aws_server.limits import HEADER_BYTES, HEADERS, PATH, QUERY

# 256 kB at most, which is what the event loop reads at once: to discard bodies at the network's speed
# takes a processor.
_BETWEEN_PIECES_SECONDS = 0.005
_LONGEST_DISCARD_SECONDS = 30.0
_LONGEST_PAUSE_SECONDS = 1.0
_FEW_DIGITS = 5


class Heads:
    """Refuses requests with too long a path or query, or too many or too long headers.

    What a client still sends of a large body that was refused, here or behind, is discarded before the
    refusal, slowly: a client reads no answer before it has sent its request, and a loop of such requests
    would leave no time for others' work.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._discarding = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            large, expects = _body(scope)
            if large:
                receive, send = self._without_rest(receive, send, sent=not expects)
            try:
                _check(scope)
            except RefusedError as refusal:
                await refuse(send, refusal)
                return
        await self._app(scope, receive, send)

    def _without_rest(self, receive: Receive, send: Send, *, sent: bool) -> tuple[Receive, Send]:
        more = True

        async def receive_and_note() -> Message:
            nonlocal more
            message = await receive()
            more = message.get("more_body", False)
            return message

        async def discard() -> None:
            while more:
                async with asyncio.timeout(_LONGEST_PAUSE_SECONDS):
                    await receive_and_note()
                async with self._discarding:
                    await asyncio.sleep(_BETWEEN_PIECES_SECONDS)

        async def send_after_rest(message: Message) -> None:
            if more and message["type"] == "http.response.start":
                if sent:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LONGEST_DISCARD_SECONDS):
                            await discard()
                if more:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        return receive_and_note, send_after_rest


def _body(scope: Scope) -> tuple[bool, bool]:
    """Whether a request may have a large body, and whether its client waits to be told to send it."""
    large = expects = False
    for name, value in scope["headers"]:
        if name == b"content-length":
            large = large or len(value) > _FEW_DIGITS
        elif name == b"transfer-encoding":
            large = True
        elif name == b"expect":
            expects = True
    return large, expects


def _check(scope: Scope) -> None:
    PATH.check(len(scope.get("raw_path") or scope["path"]))
    QUERY.check(len(scope.get("query_string", b"")))
    headers = scope["headers"]
    HEADERS.check(len(headers))
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
    HEADER_BYTES.check(size)
