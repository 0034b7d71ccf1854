"""Reading request bodies without letting large or unfinished ones fill the memory."""

from __future__ import annotations

import asyncio

from mlflow_aws_server.asgi import Receive
from mlflow_aws_server.errors import SlowBodyError
from mlflow_aws_server.limits import HELD, SMALL_BODY, Limit

_TIMEOUT_SECONDS = 120.0


class Bodies:
    """The request bodies that one process holds at a time.

    Small ones may always be read. Larger ones share a budget, so that many of them, or many unfinished ones,
    can neither fill the memory nor keep everyone else waiting.
    """

    def __init__(self) -> None:
        self.large = 0
        """Bytes of large bodies held now."""

    async def read(self, receive: Receive, length: int | None, limit: Limit) -> bytes | None:
        """The whole body, or None if the client disconnected. It counts as held until `release`d.

        `length` is None if the client did not say it.

        Raises:
            LimitError: it is beyond `limit`, or too many bytes are held already.
            SlowBodyError: it takes longer than two minutes.
        """
        if length is not None:
            limit.check(length)
        message = await receive()
        if message["type"] != "http.request":
            return None
        if length is not None and length <= SMALL_BODY and not message.get("more_body", False):
            return bytes(message.get("body", b""))
        held = 0
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                chunks: list[bytes] = []
                while True:
                    chunk = message.get("body", b"")
                    chunks.append(chunk)
                    held += len(chunk)
                    self.large += len(chunk)
                    limit.check(held)
                    if held > SMALL_BODY:
                        HELD.check(self.large)
                    if not message.get("more_body", False):
                        body = b"".join(chunks)
                        held -= _counted(body)
                        return body
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
        except TimeoutError:
            raise SlowBodyError(f"The body did not arrive within {_TIMEOUT_SECONDS:.0f} s.") from None
        finally:
            self.large -= held

    def exchange(self, body: bytes, plain: bytes) -> bytes:
        """Hold `plain` instead of the `body` that it was decoded from.

        Raises:
            LimitError: too many bytes are held already.
        """
        more = _counted(plain) - _counted(body)
        if more > 0:
            HELD.check(self.large + more)
        self.large += more
        return plain

    def release(self, body: bytes) -> None:
        """Stop counting a body that `read` returned."""
        self.large -= _counted(body)


def _counted(body: bytes) -> int:
    return len(body) if len(body) > SMALL_BODY else 0
