"""The audit lines of one process: numbered without a gap, and handed to a log that nothing else writes to."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from mlflow_aws_server.metrics import METRICS

Deliver = Callable[[bytes], None]
"""Hands over one line with its end, whole, without waiting; raises OSError if nobody takes it now."""

# A log that is behind for a moment slows its callers down; one that is behind for longer does not stop them.
_PATIENCE_SECONDS = 1.0
# A task's receiver starts at the same time as its server.
_PATIENCE_AT_START_SECONDS = 60.0
_POLL_SECONDS = 0.01

_log = logging.getLogger("mlflow_aws_server.identity")


class AuditPipeError(RuntimeError):
    """Nobody takes audit lines; the message says where they were offered."""


class AuditLog:
    """Gives each line of this process its number, and delivers it.

    A line that cannot be delivered in time goes to the application's log, as the field `audit_undelivered`:
    a missing number in the audit log means that it is there, or that the process was killed.
    """

    def __init__(self, deliver: Deliver) -> None:
        self.process = secrets.token_hex(8)
        """Unique to this object; made in a worker, after its fork."""
        self._deliver = deliver
        self._numbers = itertools.count(1)
        self._behind = False

    def number(self) -> int:
        """The next line's number."""
        return next(self._numbers)

    async def write(self, line: bytes) -> None:
        """Deliver a line, without its end; never raises."""
        if not await self._delivered(line, 0 if self._behind else _PATIENCE_SECONDS):
            self._behind = True
            METRICS.add("AuditUndelivered")
            _log.error(
                "an audit line could not be delivered",
                extra={"fields": {"audit_undelivered": line.decode("ascii")}},
            )

    async def open(self, line: bytes) -> None:
        """Deliver the first line.

        Raises:
            AuditPipeError: nobody takes it. A server whose changes leave no trace must not start.
        """
        if not await self._delivered(line, _PATIENCE_AT_START_SECONDS):
            raise AuditPipeError(
                f"nobody takes audit lines: {self._deliver}. Look at the log of the task's container `audit`."
            )

    async def _delivered(self, line: bytes, patience: float) -> bool:
        waited_until: float | None = None
        while True:
            try:
                self._deliver(line + b"\n")
            except OSError:
                now = time.monotonic()
                if waited_until is None:
                    waited_until = now + patience
                if now >= waited_until:
                    return False
                await asyncio.sleep(_POLL_SECONDS)
            else:
                self._behind = False
                return True


class AuditPipe:
    """Delivers to a named pipe, whose reader is `audit_stream`, in a container of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __repr__(self) -> str:
        return str(self._path)

    def __call__(self, line: bytes) -> None:
        """Write a line; not longer than PIPE_BUF, it is written as a whole or not at all."""
        if self._descriptor is None:
            # Fails without a reader, as a write does once the reader is gone.
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(self._descriptor, line)
        except BlockingIOError:
            raise
        except OSError:
            os.close(self._descriptor)
            self._descriptor = None
            raise


def to_standard_output(line: bytes) -> None:
    """Deliver to standard output: where the task has no container for the audit log."""
    os.write(1, line)
