"""One change at a time for each registered model, in all workers of all tasks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator

import asyncpg

from mlflow_aws_server.database.connect import AsyncConnection, OpenConnection
from mlflow_aws_server.errors import UnavailableError
from mlflow_aws_server.provenance.errors import later

_logger = logging.getLogger(__name__)

CONNECTIONS = 1
"""How many database connections a worker process holds at most for locks."""

_WAIT_SECONDS = 10.0
_CLOSE_SECONDS = 2.0


class ModelLocks:
    """Advisory locks of PostgreSQL, one for each name of a registered model.

    A lock has its own connection and ends with it, so no failure can leave it behind. Promotions are rare:
    opening a connection for each is cheaper than keeping one idle in every worker.
    """

    def __init__(
        self,
        open_connection: OpenConnection,
        *,
        connections: int = CONNECTIONS,
        wait_seconds: float = _WAIT_SECONDS,
    ) -> None:
        self._open = open_connection
        self._connections = connections
        self._wait_seconds = wait_seconds
        self._free: asyncio.Semaphore | None = None

    @contextlib.asynccontextmanager
    async def hold(self, model: str) -> AsyncIterator[None]:
        """Hold the lock of `model`.

        Raises:
            ProvenanceError: 503, others held it for too long.
            UnavailableError: the database cannot be reached.
        """
        if self._free is None:
            # A semaphore belongs to the event loop, which does not exist before the first request.
            self._free = asyncio.Semaphore(self._connections)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise self._busy(model) from None
        try:
            connection = await self._locked(model)
            try:
                yield
            finally:
                await _close(connection)
        finally:
            self._free.release()

    async def _locked(self, model: str) -> AsyncConnection:
        connection = None
        try:
            connection = await self._open()
            await connection.execute(f"SET lock_timeout = {int(self._wait_seconds * 1000)}")
            await connection.fetchval("SELECT pg_advisory_lock($1)", lock_key(model))
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if isinstance(error, asyncpg.LockNotAvailableError):
                raise self._busy(model) from None
            if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)):
                _logger.error("the lock of model %r cannot be taken: %r", model, error)
                raise UnavailableError(
                    "The database cannot be reached at the moment. Nothing was changed."
                ) from error
            raise
        return connection

    def _busy(self, model: str) -> Exception:
        return later(
            f"Others have been changing the model {model!r} for {self._wait_seconds:.0f} s. "
            "Nothing was changed; try again."
        )


def lock_key(model: str) -> int:
    """The 64-bit key of a model's advisory lock."""
    digest = hashlib.sha256(b"mlflow_aws.model:" + model.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


async def _close(connection: AsyncConnection) -> None:
    try:
        await connection.close(timeout=_CLOSE_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        connection.terminate()
