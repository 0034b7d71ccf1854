"""Connections shared by many callers: few, handed on, replaced when they break."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from botocore.exceptions import CredentialRetrievalError, MetadataRetrievalError
from mlflow_aws_server import shares
from mlflow_aws_server.database import pool as pool_module
from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.database.token import NoCredentialsError
from mlflow_aws_server.errors import ContendedError, OverloadedError, UnavailableError
from mlflow_aws_server.limits import OutOfTimeError
from mlflow_aws_server.metrics import METRICS


async def test_a_call_that_waits_too_long_is_asked_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "LONGEST_WAIT_SECONDS", 0.05)
    pool = ConnectionPool(_never_used, connections=1, queue=9)
    release = asyncio.Event()

    async def hold(_: AsyncConnection) -> None:
        await release.wait()

    holder = asyncio.create_task(pool.run(hold))
    await asyncio.sleep(0)
    METRICS.end_minute()
    with pytest.raises(OverloadedError):
        await pool.run(hold)
    assert METRICS.end_minute().longest_wait >= 0.05
    release.set()
    await holder
    await pool.close()


class _FakeConnection:
    closed = False

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True

    async def close(self, **_: Any) -> None:
        self.closed = True


async def _never_used() -> AsyncConnection:
    return _FakeConnection()


async def test_the_pool_never_opens_more_connections_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_FIRST_BACKOFF_SECONDS", 0.0)
    live: set[_FakeConnection] = set()
    most = 0

    async def open_connection() -> AsyncConnection:
        nonlocal most
        await asyncio.sleep(0)
        connection = _FakeConnection()
        live.add(connection)
        most = max(most, sum(not c.closed for c in live))
        return connection

    pool = ConnectionPool(open_connection, connections=3, queue=1000)
    turn = 0

    async def sometimes_broken(connection: _FakeConnection) -> int:
        nonlocal turn
        turn += 1
        mine = turn
        await asyncio.sleep(0)
        if mine % 5 == 0:
            connection.closed = mine % 2 == 0
            raise ConnectionResetError("gone")
        if mine % 7 == 0:
            raise asyncpg.DeadlockDetectedError("lost")
        return mine

    results = await asyncio.gather(*(pool.run(sometimes_broken) for _ in range(300)), return_exceptions=True)
    assert most <= 3
    assert sum(isinstance(r, int) for r in results) > 290
    # And every right to open one came back.
    assert len(await asyncio.gather(*(pool.run(_identity) for _ in range(3)))) == 3
    await pool.close()


async def _lose(races: int) -> int:
    lost = 0

    async def operation(_: AsyncConnection) -> int:
        nonlocal lost
        if lost < races:
            lost += 1
            raise asyncpg.DeadlockDetectedError("lost")
        return lost

    return await ConnectionPool(_never_used, connections=1, queue=9).run(operation)


async def test_a_lost_race_is_run_again_more_often_than_a_broken_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_module, "_FIRST_BACKOFF_SECONDS", 0.0)
    assert await _lose(11) == 11
    with pytest.raises(ContendedError, match="Nothing was written"):
        await _lose(12)


def _as_postgresql_says_it(kind: type[asyncpg.PostgresError], message: str) -> asyncpg.PostgresError:
    return kind.new({"M": message, "C": kind.sqlstate})


@pytest.mark.parametrize(
    ("error", "answered", "attempts"),
    [
        (
            _as_postgresql_says_it(
                asyncpg.QueryCanceledError, "canceling statement due to statement timeout"
            ),
            OutOfTimeError,
            1,
        ),
        (TimeoutError(), UnavailableError, 1),
        (
            _as_postgresql_says_it(asyncpg.LockNotAvailableError, "canceling statement due to lock timeout"),
            ContendedError,
            1,
        ),
        # An administrator's; the same statement may be quick.
        (
            _as_postgresql_says_it(asyncpg.QueryCanceledError, "canceling statement due to user request"),
            UnavailableError,
            4,
        ),
        # Of a reader that has to follow its writer.
        (
            _as_postgresql_says_it(
                asyncpg.SerializationError, "canceling statement due to conflict with recovery"
            ),
            ContendedError,
            12,
        ),
        (ConnectionResetError("10.1.2.3 is gone"), UnavailableError, 4),
    ],
)
async def test_what_ran_out_of_time_is_not_repeated_and_no_cause_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception, answered: type[Exception], attempts: int
) -> None:
    monkeypatch.setattr(pool_module, "_FIRST_BACKOFF_SECONDS", 0.0)
    made = 0

    async def operation(_: AsyncConnection) -> None:
        nonlocal made
        made += 1
        raise error

    METRICS.end_minute()
    with pytest.raises(answered) as refused:
        await ConnectionPool(_never_used, connections=1, queue=9).run(operation)
    assert made == attempts
    # Neither a lost race nor a caller's slow statement is the database's failure.
    failures = attempts if answered is UnavailableError else 0
    assert METRICS.end_minute().counts["DatabaseErrors"] == failures
    assert refused.value.__cause__ is error
    assert not {"canceling", "10.1.2.3"} & set(str(refused.value).split())


async def _identity(connection: AsyncConnection) -> AsyncConnection:
    await asyncio.sleep(0.01)
    return connection


async def test_a_cancelled_caller_does_not_take_its_connection_along() -> None:
    pool = ConnectionPool(_never_used, connections=1, queue=10)
    release = asyncio.Event()

    async def hold(_: AsyncConnection) -> None:
        await release.wait()

    holder = asyncio.create_task(pool.run(hold))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(pool.run(_identity)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    release.set()
    await holder
    # This one is cancelled at the moment it is handed the connection.
    waiting[1].cancel()
    async with asyncio.timeout(5):
        await waiting[2]
        await pool.run(_identity)
    await pool.close()


@pytest.mark.parametrize(
    "reason",
    [
        ConnectionRefusedError("nobody listens"),
        TimeoutError(),
        asyncpg.InvalidAuthorizationSpecificationError("PAM authentication failed"),
        CredentialRetrievalError(provider="container-role", error_msg="secret"),
        MetadataRetrievalError(error_msg="secret"),
        NoCredentialsError(),
    ],
    ids=repr,
)
async def test_a_database_out_of_reach_is_said_to_be_unavailable(
    reason: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_FIRST_BACKOFF_SECONDS", 0.001)

    async def unreachable() -> AsyncConnection:
        raise reason

    pool = ConnectionPool(unreachable, connections=2, queue=10)
    METRICS.end_minute()
    for _ in range(5):
        with pytest.raises(UnavailableError) as refused:
            await pool.run(_identity)
        assert "secret" not in refused.value.message
    assert METRICS.end_minute().counts["DatabaseErrors"] == 5
