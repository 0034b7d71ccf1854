from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from bench.load import LoadClient, closed_loop
from bench.wire import Wire
from tests.bench.conftest import TinyServer


def numbered(wire: Wire) -> Callable[[int], bytes]:
    post = wire.poster("/call")
    return lambda number: post(b'{"number": %d}' % number)


async def test_every_call_has_its_own_number_and_the_next_stretch_goes_on(tiny: TinyServer) -> None:
    _, then = await closed_loop(tiny.wire, numbered(tiny.wire), first=0, concurrency=4, seconds=0.1)
    _, last = await closed_loop(tiny.wire, numbered(tiny.wire), first=then, concurrency=4, seconds=0.1)
    assert sorted(body["number"] for body in tiny.calls("/call")) == list(range(last))


async def test_calls_are_counted_once_answered_and_opening_calls_are_not(tiny: TinyServer) -> None:
    outcome, sent = await closed_loop(tiny.wire, numbered(tiny.wire), first=0, concurrency=3, seconds=0.1)
    assert outcome.succeeded == len(outcome.latencies) == sent - 3
    assert outcome.errors == 0
    assert outcome.seconds > 0
    assert outcome.generator_cpu_seconds > 0


async def test_refusals_are_errors_by_their_status(tiny: TinyServer) -> None:
    # The first call of the connection is not counted.
    tiny.failures = [(200, {}), (503, {}), (400, {})]
    outcome, _ = await closed_loop(tiny.wire, numbered(tiny.wire), first=0, concurrency=1, seconds=0.1)
    assert (outcome.statuses["503"], outcome.statuses["400"]) == (1, 1)
    assert outcome.errors == 2
    assert len(outcome.latencies) == outcome.succeeded


async def test_a_server_that_closes_connections_is_reconnected_to(tiny: TinyServer) -> None:
    tiny.failures = [(200, {}), (200, {"connection": "close"})]
    outcome, _ = await closed_loop(tiny.wire, numbered(tiny.wire), first=0, concurrency=1, seconds=0.3)
    assert outcome.errors == 0
    assert outcome.succeeded > 1


async def test_a_call_that_is_never_answered_ends_the_stretch_as_an_error() -> None:
    answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            if answers:
                writer.write(answers.pop())

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    async with server:
        wire = Wire("127.0.0.1", server.sockets[0].getsockname()[1])
        outcome, _ = await closed_loop(
            wire, numbered(wire), first=0, concurrency=1, seconds=0.1, patience=0.2
        )
    assert dict(outcome.statuses) == {"unanswered": 1}
    assert outcome.latencies[0] >= 0.2


async def test_nobody_listening_is_an_error_not_an_empty_result() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        wire = Wire("127.0.0.1", unused.getsockname()[1])
        with pytest.raises(OSError, match="onnect"):
            await closed_loop(wire, numbered(wire), first=0, concurrency=2, seconds=0.1)


async def test_a_client_gets_status_body_and_how_long_to_wait(tiny: TinyServer) -> None:
    tiny.failures = [(429, {"retry-after": "3"})]
    client = LoadClient(tiny.wire)
    refused = await client.call(tiny.wire.poster("/mlflow/runs/create")(b"{}"))
    made = await client.call(tiny.wire.poster("/mlflow/runs/create")(b"{}"))
    client.close()
    assert (refused.status, refused.retry_after) == (429, "3")
    assert (made.status, made.retry_after) == (200, None)
    assert b"run_id" in made.body


async def test_a_client_survives_a_server_that_is_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        wire = Wire("127.0.0.1", unused.getsockname()[1])
        assert (await LoadClient(wire).call(wire.get("/x"))).status == 0
