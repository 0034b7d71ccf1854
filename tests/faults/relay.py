"""A way over TCP on which things go wrong, and the event loop in which it lives."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_CHUNK = 64 * 1024

Result = TypeVar("Result")


class LoopThread:
    """An event loop in a thread of its own, for parts of which a test changes the behaviour."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, done there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    @contextmanager
    def running(self) -> Iterator[LoopThread]:
        """Run until the end of the `with` block; what is under way then is cancelled."""
        self._thread.start()
        try:
            yield self
        finally:
            with contextlib.suppress(TimeoutError):
                self.run(_cancel_the_rest())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)


async def _cancel_the_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.wait(rest, timeout=10) if rest else None


class TcpRelay:
    """Passes connections on to `target`, unless it is told otherwise.

    `answer` is given at once to whoever connects; `pause` is slept before each chunk; a connection that has
    carried `most` bytes to the target is cut.
    """

    def __init__(self, loop: LoopThread, target: tuple[str, int]) -> None:
        self.target = target
        self.answer: bytes | None = None
        self.pause = 0.0
        self.most: int | None = None
        self._loop = loop
        self._open: set[asyncio.StreamWriter] = set()
        self._server = loop.run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset every connection."""
        self._loop.run(self._cut())

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self.answer is not None:
                await reader.read(_CHUNK)
                writer.write(self.answer)
                await writer.drain()
                return
            try:
                back, forth = await asyncio.open_connection(*self.target)
            except OSError:
                writer.transport.abort()
                return
            self._open.add(forth)
            try:
                ways = [
                    asyncio.create_task(self._pump(reader, forth, counted=True)),
                    asyncio.create_task(self._pump(back, writer, counted=False)),
                ]
                _, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in left:
                    way.cancel()
            finally:
                self._open.discard(forth)
                forth.close()
        finally:
            self._open.discard(writer)
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        carried = 0
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(_CHUNK):
                if self.pause:
                    await asyncio.sleep(self.pause)
                carried += len(chunk)
                if counted and self.most is not None and carried > self.most:
                    await self._cut()
                    return
                writer.write(chunk)
                await writer.drain()
