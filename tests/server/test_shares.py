"""One principal's calls wait for each other, and let others pass."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from mlflow_aws_server import shares
from mlflow_aws_server.asgi import Message, Receive, Scope, Send
from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.errors import OverloadedError
from mlflow_aws_server.shares import CALLER, Shares, Turns
from mlflow_aws_server.stock import StockMlflow


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _queue(turns: Turns, *callers: str) -> tuple[list[str], list[asyncio.Task[None]]]:
    """Let these callers come one after the other; returns who was let in, as it goes on."""
    let_in: list[str] = []

    async def come(who: str) -> None:
        await turns.enter(who)
        let_in.append(who)

    tasks = [asyncio.create_task(come(who)) for who in callers]
    await _settle()
    return let_in, tasks


async def test_a_single_call_passes_a_long_line_of_somebody_else() -> None:
    turns = Turns("a place", places=1, each=1, queue=99)
    let_in, tasks = await _queue(turns, *["loop"] * 9, "other", "third", "other")
    for _ in range(5):
        turns.leave(let_in[-1])
        await _settle()
    assert let_in == ["loop", "loop", "other", "third", "loop", "other"]
    for task in tasks:
        task.cancel()


async def test_nobody_holds_more_places_than_its_own() -> None:
    turns = Turns("a place", places=4, each=3, queue=99)
    let_in, tasks = await _queue(turns, *["loop"] * 5, "other", "other")
    assert let_in == ["loop"] * 3 + ["other"]
    turns.leave("other")
    await _settle()
    assert let_in[4:] == ["other"]
    turns.leave("loop")
    await _settle()
    assert let_in[5:] == ["loop"]
    for task in tasks:
        task.cancel()


async def test_places_of_callers_who_went_away_are_not_lost() -> None:
    turns = Turns("a place", places=2, each=2, queue=99)
    let_in, tasks = await _queue(turns, *"aabbccdd")
    turns.leave("a")
    # Let in, and cancelled before it knows.
    tasks[2].cancel()
    tasks[5].cancel()
    await _settle()
    for _ in range(20):
        if let_in[2:]:
            turns.leave(let_in.pop())
        await _settle()
    assert turns.enter_now("z")
    assert all(task.done() for task in tasks)


async def test_a_line_is_bounded_and_so_is_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "LONGEST_WAIT_SECONDS", 0.01)
    turns = Turns("a place", places=1, each=1, queue=2)
    _, tasks = await _queue(turns, "a", "a", "a")
    with pytest.raises(OverloadedError, match=r"2 calls of a are already waiting for a place; at most 2 may"):
        await turns.enter("a")
    with pytest.raises(OverloadedError, match="have waited for a place"):
        await turns.enter("b")
    assert [
        isinstance(each, OverloadedError) for each in await asyncio.gather(*tasks, return_exceptions=True)
    ] == [
        False,
        True,
        True,
    ]


async def test_database_connections_are_given_by_turns() -> None:
    class Connection:
        def is_closed(self) -> bool:
            return False

        async def close(self, **_: object) -> None:
            pass

    async def open_connection() -> AsyncConnection:
        return Connection()

    pool = ConnectionPool(open_connection, connections=1, queue=99)
    asked: list[str] = []

    async def ask(who: str) -> None:
        async def operation(_: AsyncConnection) -> None:
            asked.append(who)
            await asyncio.sleep(0)

        CALLER.set(who)
        await pool.run(operation)

    await asyncio.gather(*(asyncio.create_task(ask(who)) for who in ["loop"] * 6 + ["other"]))
    assert asked.index("other") <= 2
    await pool.close()


class _Stock:
    """In the place of MLflow: works until it is let go."""

    def __init__(self) -> None:
        self.working: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        self.working.append(CALLER.get())
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def _sending(*messages: Message) -> Callable[[], Awaitable[Message]]:
    ahead = list(messages)

    async def receive() -> Message:
        if ahead:
            return ahead.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return receive


async def _request(app: StockMlflow, who: str, *, send: Send, receive: Receive | None = None) -> None:
    CALLER.set(who)
    await app(
        {"type": "http", "method": "GET", "path": "/", "headers": []},
        receive or _sending({"type": "http.request", "body": b""}),
        send,
    )


async def _dropped(_: Message) -> None:
    pass


async def test_slow_calls_of_one_principal_leave_threads_to_others() -> None:
    behind = _Stock()
    app = StockMlflow(behind, threads=5)
    tasks = [asyncio.create_task(_request(app, who, send=_dropped)) for who in ["loop"] * 20 + ["other"]]
    await _settle()
    assert behind.working == ["loop"] * 3 + ["other"]
    behind.go.set()
    await asyncio.gather(*tasks)
    assert len(behind.working) == 21


async def test_slow_senders_and_slow_readers_hold_no_thread() -> None:
    behind = _Stock()
    behind.go.set()
    app = StockMlflow(behind, threads=2)
    stopped = asyncio.Event()

    async def read_nothing(message: Message) -> None:
        if message["type"] == "http.response.start":
            await stopped.wait()

    unfinished = {"type": "http.request", "body": b"{", "more_body": True}
    slow = [
        asyncio.create_task(_request(app, who, send=read_nothing, receive=receive))
        for who in "abc"
        for receive in (_sending(unfinished), None)
    ]
    await _settle()
    await asyncio.wait_for(_request(app, "other", send=_dropped), 30)
    stopped.set()
    for task in slow:
        task.cancel()


async def test_a_request_that_was_never_complete_is_not_given_to_mlflow() -> None:
    behind = _Stock()
    gone = _sending({"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"})
    await _request(StockMlflow(behind, threads=2), "someone", send=_dropped, receive=gone)
    assert behind.working == []


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_who_is_too_fast_is_slowed_down_and_then_refused(caplog: pytest.LogCaptureFixture) -> None:
    clock = _Clock()
    mine = Shares(in_flight=100, per_minute=600, workers=2, clock=clock)
    assert [mine._take("loop") for _ in range(50)][-1] == pytest.approx(0, abs=1e-6)
    assert mine._take("loop") == pytest.approx(0.2)
    assert mine._take("other") <= 0
    while mine._take("loop") <= shares.LONGEST_DELAY_SECONDS:
        pass
    for _ in range(3):
        with pytest.raises(OverloadedError, match=r"server.requests_per_minute = 600, among 2") as refused:
            await mine.enter("loop")
        assert (refused.value.status, refused.value.retry_after) == (429, 2)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    clock.now += 61
    assert mine._take("loop") <= 0


async def test_a_refusal_costs_as_much_as_many_requests() -> None:
    mine = Shares(in_flight=100, per_minute=60_000, clock=_Clock())
    for _ in range(101):
        mine.refused("loop")
    assert mine._take("loop") > 0
    assert mine._take("other") <= 0


async def test_more_in_flight_than_allowed_wait_and_none_is_lost() -> None:
    mine = Shares(in_flight=32, per_minute=600_000, workers=2)
    working = most = 0

    async def work() -> None:
        nonlocal working, most
        await mine.enter("loop")
        working += 1
        most = max(most, working)
        await asyncio.sleep(0)
        working -= 1
        mine.leave("loop")

    await asyncio.gather(*(work() for _ in range(100)))
    assert most == 16


async def test_what_is_remembered_of_principals_is_bounded() -> None:
    mine = Shares(clock=_Clock())
    for number in range(5000):
        await mine.enter(f"role-{number}")
        mine.leave(f"role-{number}")
    assert len(mine._due) <= 4096
    assert not mine._in_flight._held


async def test_answers_that_wait_for_nothing_leave_time_for_work() -> None:
    mine = Shares()
    answered = rounds = 0

    async def ask(who: str) -> None:
        nonlocal answered
        await mine.answer(who)
        answered += 1

    asking = [asyncio.create_task(ask(who)) for who in "abcd" * 50]
    while not all(task.done() for task in asking):
        rounds += 1
        await asyncio.sleep(0)
    assert answered == 200
    assert rounds >= 200
