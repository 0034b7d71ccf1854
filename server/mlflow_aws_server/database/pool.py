"""A pool of PostgreSQL connections that bounds their number and the callers waiting for one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from mlflow_aws_server.database.connect import AsyncConnection, OpenConnection
from mlflow_aws_server.errors import ContendedError, OverloadedError, UnavailableError

_logger = logging.getLogger(__name__)

# How long a caller waits for a connection before it is told to try again.
_QUEUE_TIMEOUT_SECONDS = 15.0
_ATTEMPTS = 4
_FIRST_BACKOFF_SECONDS = 0.05
# A lost race means that other writers make progress: retrying often does not hurt a database in trouble.
_RACES = 12
_LONGEST_RACE_BACKOFF_SECONDS = 0.5

Result = TypeVar("Result")

# The connection, or the server behind it, is gone or going away.
_DISCONNECTED: tuple[type[BaseException], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidAuthorizationSpecificationError,
    # After a failover, the endpoint's name still resolved to the former primary.
    asyncpg.ReadOnlySQLTransactionError,
    OSError,
    TimeoutError,
)


class LostRaceError(Exception):
    """A concurrent writer was faster; the operation wrote nothing and can be tried again."""


# Other writers made progress instead.
_LOST_RACE: tuple[type[BaseException], ...] = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    LostRaceError,
)

# The connection is fine, but the server cancelled the statement or had no resources for it.
_INTERRUPTED: tuple[type[BaseException], ...] = (
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
)


class ConnectionPool:
    """At most `connections` connections, each used by one operation at a time.

    Connections are opened when first needed and replaced when they break. asyncpg's own pool sends a
    second statement after each use and lets any number of callers wait; this one does neither.
    """

    def __init__(
        self, open_connection: OpenConnection, *, connections: int, queue: int, attempts: int = _ATTEMPTS
    ) -> None:
        self._open = open_connection
        self._attempts = attempts
        self._size = connections
        self._queue = queue
        self._idle: list[AsyncConnection] = []
        self._opened = 0
        self._waiting: deque[tuple[asyncio.Future[AsyncConnection | None], float]] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self._closed = False

    async def run(self, operation: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run `operation` on one connection and return its result.

        An operation that fails because of the connection or a lost race is repeated, so it must be
        idempotent. Other database errors are raised unchanged.

        Raises:
            OverloadedError: too many callers are waiting for a connection, or this one waited too long.
            UnavailableError: the database could not be reached in several attempts.
            ContendedError: other writers were faster in many attempts; nothing was written.
        """
        failures = races = 0
        while True:
            connection = await self._acquire()
            broken = False
            try:
                return await operation(connection)
            except _DISCONNECTED as error:
                broken = True
                failures += 1
                reason: BaseException = error
            except _INTERRUPTED as error:
                failures += 1
                reason = error
            except _LOST_RACE as error:
                races += 1
                reason = error
            except asyncio.CancelledError:
                # The server may still be working on the statement.
                broken = True
                raise
            finally:
                self._release(connection, broken=broken)
            if failures == self._attempts:
                raise UnavailableError(f"{type(reason).__name__}: {reason}") from reason
            if races == _RACES:
                raise ContendedError(f"other writers were faster {races} times ({reason})") from reason
            _logger.warning("database attempt %d failed, trying again: %r", failures + races, reason)
            if broken:
                self._drop_idle()
            if isinstance(reason, _LOST_RACE):
                backoff = min(_FIRST_BACKOFF_SECONDS * 2 ** (races - 1), _LONGEST_RACE_BACKOFF_SECONDS)
            else:
                backoff = _FIRST_BACKOFF_SECONDS * 4 ** (failures - 1)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.5))  # noqa: S311 - spreads retries

    async def close(self) -> None:
        """Close every connection. Callers that still wait are told to try again."""
        self._closed = True
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(OverloadedError("the server is shutting down"))
        idle, self._idle = self._idle, []
        for connection in idle:
            with contextlib.suppress(Exception):
                await connection.close(timeout=2)

    async def _acquire(self) -> AsyncConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._opened -= 1
        if self._opened < self._size:
            return await self._open_one()
        if len(self._waiting) >= self._queue:
            raise OverloadedError(f"{len(self._waiting)} calls are already waiting for a database connection")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[AsyncConnection | None] = loop.create_future()
        self._waiting.append((future, loop.time() + _QUEUE_TIMEOUT_SECONDS))
        if self._expiry is None:
            self._expiry = loop.call_later(1.0, self._expire)
        try:
            handed = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._pass_on(future.result())
            raise
        # None: the right to open a connection that replaces a broken one.
        return handed if handed is not None else await self._open_one(counted=True)

    async def _open_one(self, *, counted: bool = False) -> AsyncConnection:
        if not counted:
            self._opened += 1
        try:
            return await self._open()
        except BaseException as error:
            self._pass_on(None)
            if isinstance(error, (*_DISCONNECTED, asyncpg.PostgresError)):
                raise UnavailableError(f"{type(error).__name__}: {error}") from error
            raise

    def _release(self, connection: AsyncConnection, *, broken: bool) -> None:
        if not broken and not self._closed and not connection.is_closed():
            self._pass_on(connection)
            return
        connection.terminate()
        self._pass_on(None)

    def _pass_on(self, connection: AsyncConnection | None) -> None:
        """Give a connection, or the right to open one (None), to the first caller that still waits."""
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_result(connection)
                return
        if connection is None:
            self._opened -= 1
        else:
            self._idle.append(connection)

    def _drop_idle(self) -> None:
        # If one connection broke because the server went away, so did the idle ones.
        idle, self._idle = self._idle, []
        self._opened -= len(idle)
        for connection in idle:
            connection.terminate()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._expiry = None
        now = loop.time()
        while self._waiting and (self._waiting[0][0].done() or self._waiting[0][1] <= now):
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(
                    OverloadedError(
                        f"no database connection became free within {_QUEUE_TIMEOUT_SECONDS:.0f} s"
                    )
                )
        if self._waiting:
            self._expiry = loop.call_later(1.0, self._expire)
