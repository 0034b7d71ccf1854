"""Answers from a reader: a copy of the database that may be some moments behind it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import asyncpg

from mlflow_aws_server.database.connect import OpenConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.errors import ContendedError, OverloadedError, UnavailableError
from mlflow_aws_server.fastpath.schema import schema_obstacle

_logger = logging.getLogger(__name__)

Handler = Callable[[ConnectionPool, bytes], Awaitable[bytes]]


class Reader:
    """Answers while it was last seen with a schema that the fast path knows; the writer is its fallback.

    It is not asked before the first `check`, nor after a failure until the next one.
    """

    def __init__(self, open_connection: OpenConnection, *, connections: int, queue: int) -> None:
        """`open_connection` opens one connection to the reader; at most `connections` are open at a time."""
        # The writer is the second attempt.
        self._pool = ConnectionPool(open_connection, connections=connections, queue=queue, attempts=1)
        self._answering = False
        self._obstacle: str | None = None

    async def answer(self, handler: Handler, question: bytes) -> bytes | None:
        """The reader's answer, or None where the writer has to be asked.

        Raises:
            OutOfTimeError: it would take the writer as long.
            LeaveToStockError: the handler does not fully understand the question.
        """
        if not self._answering:
            return None
        try:
            return await handler(self._pool, question)
        except (OverloadedError, ContendedError) as error:
            # It is there; replay of the writer's changes may have cancelled the statement.
            _logger.debug("left to the writer: %s", error)
        except (UnavailableError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._judge(f"it failed ({error.__cause__ or error})")
        return None

    async def check(self) -> None:
        """See whether the reader can be asked."""
        try:
            self._judge(await self._pool.run(schema_obstacle))
        except (OverloadedError, ContendedError):
            pass
        except Exception as error:
            # Whatever is wrong with it, the writer answers.
            self._judge(f"it cannot be reached ({error.__cause__ or error})")

    async def close(self) -> None:
        """Close its connections."""
        self._answering = False
        await self._pool.close()

    def _judge(self, obstacle: str | None) -> None:
        if obstacle is None and not self._answering:
            _logger.info("reader: answers what may be some moments old")
        elif obstacle is not None and obstacle != self._obstacle:
            _logger.warning("reader: the writer answers instead: %s", obstacle)
        self._answering = obstacle is None
        self._obstacle = obstacle
