"""One server at a time seals a version: advisory locks of PostgreSQL on one connection of each worker."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import asyncpg

from mlflow_aws_server.database.connect import AsyncConnection, OpenConnection

_CLOSE_SECONDS = 2.0

Result = TypeVar("Result")


class Held:
    """A lock that is held; what is done with it fails once the lock is lost."""

    def __init__(self, connection: AsyncConnection, turn: asyncio.Lock) -> None:
        self._connection = connection
        self._turn = turn

    @property
    def lost(self) -> bool:
        """Whether another server may hold the lock by now."""
        return bool(self._connection.is_closed())

    async def run(self, operation: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Do it on the connection that holds the lock.

        Raises:
            asyncpg.InterfaceError: the connection is closed, and so the lock may be another's.
        """
        async with self._turn:
            return await operation(self._connection)


class SealLocks:
    """A connection that is open while versions are being sealed; its end, whatever the cause, frees them."""

    def __init__(self, open_connection: OpenConnection) -> None:
        self._open = open_connection
        self._connection: AsyncConnection = None
        self._turn = asyncio.Lock()
        self._users = 0

    @contextlib.asynccontextmanager
    async def hold(self, name: str, version: int) -> AsyncIterator[Held | None]:
        """Hold a version's lock; gives None if another server holds it."""
        key = _key(name, version)
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._open()
            connection = self._connection
            self._users += 1
            try:
                taken = await connection.fetchval("SELECT pg_try_advisory_lock($1)", key)
            except BaseException:
                self._users -= 1
                connection.terminate()
                raise
        try:
            yield Held(connection, self._turn) if taken else None
        finally:
            self._users -= 1
            await asyncio.shield(self._release(connection, key if taken else None))

    async def _release(self, connection: AsyncConnection, key: int | None) -> None:
        async with self._turn:
            try:
                if self._users == 0 and self._connection is connection:
                    self._connection = None
                    await connection.close(timeout=_CLOSE_SECONDS)
                elif key is not None:
                    await connection.fetchval("SELECT pg_advisory_unlock($1)", key)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                connection.terminate()


def _key(name: str, version: int) -> int:
    raw = f"mlflow_aws.seal:{version}:{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "big", signed=True)
