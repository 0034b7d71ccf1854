"""Reading request bodies without letting large or unfinished ones fill the memory."""

from __future__ import annotations

import asyncio

from mlflow_aws_server.asgi import App, Receive, Scope, Send, header_values, replay
from mlflow_aws_server.errors import BodyLengthError, OverloadedError, SlowBodyError

LARGEST = 4 * 1024 * 1024
"""In bytes; no call that this server handles itself needs a larger body."""

# A body up to this size may always be read; larger ones share a budget, so that many of them, or many
# unfinished ones, can neither fill the memory nor keep everyone else waiting.
_SMALL = 64 * 1024
_BUDGET = 32 * 1024 * 1024
_TIMEOUT_SECONDS = 120.0
# Stock MLflow needs ten times a body's size in memory.
_LARGE_AT_STOCK = 2


class Bodies:
    """The request bodies that one process holds at a time."""

    def __init__(self) -> None:
        self._at_stock = asyncio.Semaphore(_LARGE_AT_STOCK)
        self.large = 0
        """Bytes of large bodies held now."""

    async def read(self, receive: Receive, length: int) -> bytes | None:
        """The whole body, or None if the client disconnected. It counts as held until `release`d.

        Raises:
            OverloadedError: too many bytes are held already.
            SlowBodyError: the body takes longer than two minutes.
        """
        message = await receive()
        if message["type"] != "http.request":
            return None
        if length <= _SMALL and not message.get("more_body", False):
            return bytes(message.get("body", b""))
        held = 0
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                chunks: list[bytes] = []
                while True:
                    chunk = message.get("body", b"")
                    chunks.append(chunk)
                    if length > _SMALL:
                        held += len(chunk)
                        self.large += len(chunk)
                        if self.large > _BUDGET:
                            raise OverloadedError("too many large requests are being received")
                    if not message.get("more_body", False):
                        held = 0
                        return b"".join(chunks)
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
        except TimeoutError:
            raise SlowBodyError(f"the body did not arrive within {_TIMEOUT_SECONDS:.0f} s") from None
        finally:
            self.large -= held

    def release(self, body: bytes) -> None:
        """Stop counting a body that `read` returned."""
        if len(body) > _SMALL:
            self.large -= len(body)

    async def leave_to(self, app: App, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Let `app` answer a request whose body was read; large ones only a few at a time."""
        if len(body) <= _SMALL:
            await app(scope, replay(body, receive), send)
            return
        async with self._at_stock:
            await app(scope, replay(body, receive), send)


def declared_length(scope: Scope) -> int:
    """The length of a request's body.

    Raises:
        BodyLengthError: it is missing, or larger than any call needs that is read here.
    """
    lengths = set(header_values(scope, b"content-length"))
    if header_values(scope, b"transfer-encoding") or len(lengths) > 1:
        raise BodyLengthError(411, "Send the body with one Content-Length.")
    text = lengths.pop() if lengths else b"0"
    if not text.isdigit():
        raise BodyLengthError(400, "Content-Length is not a number.")
    if int(text) > LARGEST:
        message = f"The body has {int(text)} bytes; at most {LARGEST} are accepted. Send less at once."
        raise BodyLengthError(413, message)
    return int(text)
