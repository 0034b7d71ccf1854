"""A pool of PostgreSQL connections that bounds their number and the callers waiting for one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
from botocore.exceptions import BotoCoreError

from mlflow_aws_server.database.connect import AsyncConnection, OpenConnection
from mlflow_aws_server.database.errors import is_out_of_time
from mlflow_aws_server.database.token import NoCredentialsError
from mlflow_aws_server.errors import ContendedError, UnavailableError
from mlflow_aws_server.limits import WRITE_TIME, OutOfTimeError
from mlflow_aws_server.metrics import METRICS
from mlflow_aws_server.shares import CALLER, Turns

_logger = logging.getLogger(__name__)

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
)
# Nor is there a login while the role's credentials cannot be had.
_NOT_OPENED: tuple[type[BaseException], ...] = (
    *_DISCONNECTED,
    TimeoutError,
    BotoCoreError,
    NoCredentialsError,
)


class LostRaceError(Exception):
    """A concurrent writer was faster; the operation wrote nothing and can be tried again."""


# Other writers made progress instead.
_LOST_RACE: tuple[type[BaseException], ...] = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
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

    Connections are opened when first needed and replaced when they break. Principals get them by turns.
    asyncpg's own pool sends a second statement after each use and lets any number of callers wait; this one
    does neither.
    """

    def __init__(
        self, open_connection: OpenConnection, *, connections: int, queue: int, attempts: int = _ATTEMPTS
    ) -> None:
        self._open = open_connection
        self._attempts = attempts
        self._turns = Turns("a database connection", places=connections, each=connections, queue=queue)
        self._idle: list[AsyncConnection] = []
        self._closed = False

    async def run(self, operation: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run `operation` on one connection and return its result.

        An operation that fails because of the connection or a lost race is repeated, so it must be
        idempotent. What ran into a time limit is not. Other database errors are raised unchanged.

        Raises:
            OutOfTimeError: the database ended the operation's statement at the role's time limit.
            OverloadedError: too many callers are waiting for a connection, or this one waited too long.
            UnavailableError: the database could not be reached in several attempts, or gave no answer.
            ContendedError: other writers were faster in many attempts, or held a lock for too long;
                nothing was written.
        """
        failures = races = 0
        who = CALLER.get()
        while True:
            if not self._turns.enter_now(who):
                await METRICS.wait(self._turns.enter(who))
            connection: AsyncConnection | None = None
            broken = False
            try:
                connection = await self._connection()
                return await operation(connection)
            except TimeoutError as error:
                # The server ends statements earlier than we give up waiting: it is not there.
                broken = True
                raise _unavailable() from error
            except _DISCONNECTED as error:
                broken = True
                failures += 1
                reason: BaseException = error
            except asyncpg.LockNotAvailableError as error:
                raise _contended() from error
            except _INTERRUPTED as error:
                if is_out_of_time(error):
                    raise OutOfTimeError(WRITE_TIME) from error
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
                if connection is not None:
                    if broken or self._closed or connection.is_closed():
                        connection.terminate()
                    else:
                        self._idle.append(connection)
                self._turns.leave(who)
            if failures == self._attempts:
                raise _unavailable() from reason
            if races == _RACES:
                raise _contended() from reason
            if not isinstance(reason, _LOST_RACE):
                METRICS.add("DatabaseErrors")
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
        self._turns.close()
        idle, self._idle = self._idle, []
        for connection in idle:
            with contextlib.suppress(Exception):
                await connection.close(timeout=2)

    async def _connection(self) -> AsyncConnection:
        """An idle connection, or a new one; the caller has a place for it."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        try:
            return await self._open()
        except (*_NOT_OPENED, asyncpg.PostgresError) as error:
            raise _unavailable() from error

    def _drop_idle(self) -> None:
        # If one connection broke because the server went away, so did the idle ones.
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()


def _unavailable() -> UnavailableError:
    METRICS.add("DatabaseErrors")
    # What went wrong is its cause, and not for clients.
    return UnavailableError("The database cannot be reached at the moment.")


def _contended() -> ContendedError:
    return ContendedError(
        "Other calls keep changing the same data. Nothing was written; send the call again."
    )
