"""The load generator: many kept-alive connections, each sending its next call when its last is answered.

httptools (Node.js's HTTP parser, in C) parses responses and uvloop (libuv) does the I/O, so a call costs the
generator about 8 µs; see docs/performance.md for what else was measured.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import httptools

from bench.wire import Wire

NextRequest = Callable[[int], bytes]


@dataclass
class LoadResult:
    """The result of a stretch of load; latencies are in seconds, of the calls answered with 2xx.

    A call without a response counts in `statuses` as `unanswered` and in `latencies` with the time waited for
    it; a call whose connection broke counts as `disconnected`.
    """

    seconds: float = 0.0
    latencies: array[float] = field(default_factory=lambda: array("d"))
    statuses: Counter[str] = field(default_factory=Counter)
    generator_cpu_seconds: float = 0.0

    @property
    def succeeded(self) -> int:
        """Calls answered with 2xx."""
        return sum(count for status, count in self.statuses.items() if status.startswith("2"))

    @property
    def errors(self) -> int:
        """Calls that were sent and did not succeed."""
        return sum(self.statuses.values()) - self.succeeded


class LoadConnection(asyncio.Protocol):
    """One kept-alive connection; one call at a time."""

    def __init__(
        self, answered: Callable[[LoadConnection, str, bytes], None], *, keep_body: bool = False
    ) -> None:
        self._answered = answered
        self._keep_body = keep_body
        self._body = bytearray()
        self.transport: asyncio.WriteTransport | None = None
        self.busy = False
        self.sent = 0.0
        self.retry_after: str | None = None

    def send(self, request: bytes) -> None:
        """Send the next call. The last must have been answered."""
        assert self.transport is not None
        self.busy = True
        self.sent = perf_counter()
        self.transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to parse responses."""
        self.transport = cast(asyncio.WriteTransport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; close the connection if it is not HTTP."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_message_begin(self) -> None:
        """Discard the previous response."""
        self.retry_after = None
        self._body.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note how long an overloaded server asks us to wait."""
        if len(name) == 11 and name.lower() == b"retry-after":
            self.retry_after = value.decode("ascii", "replace")

    def on_body(self, body: bytes) -> None:
        """Keep the body if it is wanted."""
        if self._keep_body:
            self._body += body

    def on_message_complete(self) -> None:
        """Pass the response on."""
        if not self._parser.should_keep_alive():
            self.close()
        self.busy = False
        self._answered(
            self, str(self._parser.get_status_code()), bytes(self._body) if self._keep_body else b""
        )

    def connection_lost(self, _exc: Exception | None) -> None:
        """Report a call without a response as `disconnected`."""
        self.transport = None
        if self.busy:
            self.busy = False
            self._answered(self, "disconnected", b"")

    def close(self) -> None:
        """Close the connection; a call in flight is then `disconnected`."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def usable(self) -> bool:
        """Whether a call can be sent."""
        return self.transport is not None and not self.transport.is_closing()


async def connect(wire: Wire, connection: LoadConnection) -> None:
    """Open `connection`.

    Raises:
        OSError: nothing listens there, or TLS failed.
    """
    await asyncio.get_running_loop().create_connection(
        lambda: connection,
        wire.host,
        wire.port,
        ssl=wire.tls,
        server_hostname=wire.host if wire.tls else None,
    )


async def closed_loop(
    wire: Wire,
    next_request: NextRequest,
    *,
    first: int,
    concurrency: int,
    seconds: float,
    patience: float = 15.0,
) -> tuple[LoadResult, int]:
    """Keep `concurrency` calls in flight for `seconds`, then wait up to `patience` for the last responses.

    The n-th call since the beginning of the scenario sends `next_request(n)`, counting from `first`;
    the number after the last one sent is returned with the outcome, whose `seconds` run until the last
    response. One call per connection is sent beforehand and not counted, so that connecting is not
    measured.
    """
    loop = asyncio.get_running_loop()
    outcome = LoadResult()
    number = first
    measuring = False
    ends = 0.0
    idle = loop.create_future()
    in_flight = 0

    def answered(connection: LoadConnection, status: str, _body: bytes) -> None:
        nonlocal in_flight
        now = perf_counter()
        if measuring:
            outcome.statuses[status] += 1
            if status[0] == "2":
                outcome.latencies.append(now - connection.sent)
            if now < ends:
                if connection.usable:
                    advance(connection)
                else:
                    reconnects.append(loop.create_task(replace(connection)))
                return
        in_flight -= 1
        if in_flight == 0 and not idle.done():
            idle.set_result(None)

    def advance(connection: LoadConnection) -> None:
        nonlocal number
        connection.send(next_request(number))
        number += 1

    async def replace(broken: LoadConnection) -> None:
        # Not a busy loop when a server resets every connection.
        await asyncio.sleep(0.05)
        connection = LoadConnection(answered)
        connections[connections.index(broken)] = connection
        try:
            await connect(wire, connection)
        except OSError:
            answered(connection, "disconnected", b"")
        else:
            advance(connection)

    reconnects: list[asyncio.Task[None]] = []
    connections = [LoadConnection(answered) for _ in range(concurrency)]
    try:
        for start in range(0, concurrency, 64):
            await asyncio.gather(*(connect(wire, each) for each in connections[start : start + 64]))
        in_flight = concurrency
        for each in connections:
            advance(each)
        await _until(idle, patience)
        lame = [index for index, each in enumerate(connections) if each.busy or not each.usable]
        for index in lame:
            connections[index]._answered = _ignored
            connections[index].close()
            connections[index] = LoadConnection(answered)
            await connect(wire, connections[index])

        idle = loop.create_future()
        in_flight = concurrency
        measuring = True
        cpu = time.process_time()
        began = perf_counter()
        ends = began + seconds
        for each in connections:
            advance(each)
        await _until(idle, seconds + patience)
        measuring = False
        outcome.seconds = perf_counter() - began
        outcome.generator_cpu_seconds = time.process_time() - cpu
        for each in connections:
            if each.busy:
                outcome.statuses["unanswered"] += 1
                outcome.latencies.append(perf_counter() - each.sent)
    finally:
        for task in reconnects:
            task.cancel()
        for each in connections:
            each._answered = _ignored
            each.close()
    return outcome, number


async def _until(future: asyncio.Future[None], seconds: float) -> None:
    await asyncio.wait([future], timeout=seconds)


def _ignored(_connection: LoadConnection, _status: str, _body: bytes) -> None:
    return


@dataclass(frozen=True)
class Response:
    """The response to one call; a `status` of 0 means a broken connection or no response in time."""

    status: int
    body: bytes
    seconds: float
    retry_after: str | None = None


class LoadClient:
    """A client that awaits each of its calls, and reconnects if it must."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._connection: LoadConnection | None = None
        self._waiting: asyncio.Future[tuple[str, bytes]] | None = None

    async def call(self, request: bytes, *, timeout: float = 120.0) -> Response:
        """Send one request and return its response; never raises for what the server does."""
        began = perf_counter()
        try:
            async with asyncio.timeout(timeout):
                if self._connection is None or not self._connection.usable:
                    self._connection = LoadConnection(self._answered, keep_body=True)
                    await connect(self._wire, self._connection)
                self._waiting = asyncio.get_running_loop().create_future()
                self._connection.send(request)
                status, body = await self._waiting
        except (OSError, TimeoutError):
            self.close()
            return Response(0, b"", perf_counter() - began)
        if status == "disconnected":
            return Response(0, b"", perf_counter() - began)
        return Response(int(status), body, perf_counter() - began, self._connection.retry_after)

    def close(self) -> None:
        """Close the connection."""
        self._waiting = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answered(self, _connection: LoadConnection, status: str, body: bytes) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((status, body))
