"""Brings events from the outbox to EventBridge: each at least once, a model's in their order.

One server at a time does it, by a lease of seconds in the database, so that no transaction is open while
EventBridge is asked. An event goes out a second time, with the same id, only if a server ends between
EventBridge's answer and the row's deletion.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
from botocore.exceptions import BotoCoreError, ClientError

from mlflow_aws_server.aws import aws_client
from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.database.token import NoCredentialsError
from mlflow_aws_server.errors import RefusedError
from mlflow_aws_server.events.outbox import ADD, written
from mlflow_aws_server.events.refusals import REFUSALS

_log = logging.getLogger(__name__)

SOURCE = "mlflow-on-aws"
# What one call of PutEvents takes.
_BATCH = 10
_POLL_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_REFUSALS_SECONDS = 60.0
# Longer than three attempts of the client.
_LEASE_SECONDS = 30.0
_READ_SECONDS = 3

_LEAD = """
UPDATE mlflow_aws.dispatcher SET owner = $1, until = now() + $2 * interval '1 s'
WHERE (owner = $1 OR until < now()) AND EXISTS (SELECT FROM mlflow_aws.events WHERE not_before <= now())
RETURNING true
"""
# The first of each model: none overtakes one that EventBridge has not taken.
_NEXT = """
SELECT number, id, at, type, detail FROM (
    SELECT DISTINCT ON (about) * FROM mlflow_aws.events ORDER BY about, number
) AS first
WHERE not_before <= now() ORDER BY number LIMIT $1
"""
_DELETE = "DELETE FROM mlflow_aws.events WHERE number = ANY($1)"
_DELAY = """
UPDATE mlflow_aws.events SET attempts = attempts + 1,
    not_before = now() + least(300, 2 ^ least(attempts, 9)) * interval '1 s'
WHERE number = ANY($1)
"""
_BACKLOG = """
SELECT count(*), coalesce(extract(epoch FROM now() - min(at)), 0)::float AS oldest FROM mlflow_aws.events
"""
_RETIRE = "UPDATE mlflow_aws.dispatcher SET until = now() WHERE owner = $1"


class Dispatcher:
    """Sends what is in the outbox, from the server's start to its end."""

    def __init__(
        self, questions: ConnectionPool, bus: str, region: str, *, client: Callable[[], Any] | None = None
    ) -> None:
        """`questions` is for short statements; `client` makes the client of EventBridge."""
        self._questions = questions
        self._bus = bus
        self._make_client = client or (lambda: aws_client("events", region, read_timeout=_READ_SECONDS))
        self._client: Any = None
        self._owner = uuid.uuid4()
        self._ending = asyncio.Event()
        self._failures = 0
        self._refusals_at = time.monotonic() + _REFUSALS_SECONDS
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def shutdown(self) -> None:
        """End after what is under way; what is left is another server's."""
        self._ending.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while not self._ending.is_set():
            pause = _POLL_SECONDS
            try:
                await self._tell_refusals()
                if await self.send():
                    pause = 0.0
                self._failures = 0
            except (RefusedError, ClientError, BotoCoreError, NoCredentialsError, OSError) as error:
                self._failures += 1
                pause = min(_LONGEST_PAUSE_SECONDS, 2.0**self._failures)
                _log.warning("events wait, attempt %d failed: %r", self._failures, error)
            except asyncpg.PostgresError:
                pause = _LONGEST_PAUSE_SECONDS
                _log.exception("events cannot be read")
            spread = pause * random.uniform(0.7, 1.3)  # noqa: S311 - spreads servers
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), spread)
        try:
            self._refusals_at = 0.0
            await self._tell_refusals()
            await self._ask(_RETIRE, self._owner)
        except (RefusedError, asyncpg.PostgresError) as error:
            _log.warning("the lease of events ends by itself: %r", error)

    async def backlog(self) -> dict[str, object]:
        """How many events are to be sent, and the age of the oldest: as metrics name it."""
        (row,) = await self._ask(_BACKLOG)
        return {"EventsBacklog": row["count"], "EventsOldest": round(row["oldest"])}

    async def send(self) -> int:
        """Send the next events, if this server is the one to do it; returns how many EventBridge took."""
        if not await self._ask(_LEAD, self._owner, _LEASE_SECONDS):
            return 0
        rows = await self._ask(_NEXT, _BATCH)
        if not rows:
            return 0
        entries = [
            {
                "EventBusName": self._bus,
                "Source": SOURCE,
                "DetailType": row["type"],
                "Time": row["at"],
                "Detail": json.dumps(
                    {"id": str(row["id"]), "at": row["at"].isoformat(), **json.loads(row["detail"])}
                ),
            }
            for row in rows
        ]
        answers = (await asyncio.to_thread(self._put, entries))["Entries"]
        refused = [
            (row["number"], answer)
            for row, answer in zip(rows, answers, strict=True)
            if "ErrorCode" in answer
        ]
        late = [number for number, _ in refused]
        await self._ask(_DELETE, [row["number"] for row in rows if row["number"] not in late])
        if refused:
            await self._ask(_DELAY, late)
            _log.warning("EventBridge did not take %d events: %s", len(late), refused[0][1])
        return len(rows) - len(late)

    def _put(self, entries: list[dict[str, Any]]) -> Any:
        if self._client is None:
            self._client = self._make_client()
        return self._client.put_events(Entries=entries)

    async def _tell_refusals(self) -> None:
        if time.monotonic() < self._refusals_at:
            return
        self._refusals_at = time.monotonic() + _REFUSALS_SECONDS
        for refused in REFUSALS.take():
            about = f"refused {refused['principal']}"
            await self._ask(ADD, "Access Refused", about, written(refused))

    async def _ask(self, statement: str, *arguments: Any) -> list[Any]:
        async def ask(connection: AsyncConnection) -> list[Any]:
            rows: list[Any] = await connection.fetch(statement, *arguments)
            return rows

        return await self._questions.run(ask)
