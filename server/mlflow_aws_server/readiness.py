"""`/ready`: whether this worker can serve; only the load balancer and the container itself may ask.

200 or 503 with an empty body; headers say whether this process has a fast path, and what it knows of the
schema. Ready means: callers can be verified, and the database accepts a connection and has a schema that
serves this MLflow, or a migration keeps it from all servers for a while. The result is shared for some
seconds, and at most one query runs at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from mlflow_aws_server.asgi import NOT_STORED, App, Receive, Scope, Send, header_values
from mlflow_aws_server.database.admission import STATE
from mlflow_aws_server.fast_path_state import FastPathState

PATH = "/ready"
_FRESH_SECONDS = 5.0
# What was missing may be there a moment later.
_FRESH_SECONDS_UNREADY = 1.0
_FAST_PATH = b"x-mlflow-aws-fast-path"
_SCHEMA = b"x-mlflow-aws-schema"

_log = logging.getLogger("mlflow_aws_server.readiness")


class Readiness:
    """ASGI middleware that answers `/ready` and passes everything else on.

    A request with X-Forwarded-For has come through the load balancer, from outside: it gets 404, as if
    the path did not exist. `check` raises when this worker cannot serve; it runs in a thread.
    """

    def __init__(
        self,
        app: App,
        check: Callable[[], None],
        *,
        fresh_seconds: float = _FRESH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        fast_path: FastPathState | None = None,
    ) -> None:
        self._app = app
        self._check = check
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._fast_path = fast_path
        self._checked_at = float("-inf")
        self._ready = False
        self._running: asyncio.Task[bool] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        if scope["method"] not in ("GET", "HEAD") or header_values(scope, b"x-forwarded-for"):
            status = 404
        else:
            status = 200 if await self._is_ready() else 503
        headers = [(b"content-length", b"0"), NOT_STORED]
        if status != 404 and self._fast_path is not None:
            told = self._fast_path.reason or "serving"
            headers.append((_FAST_PATH, told.encode("ascii", "replace")))
        if status != 404:
            headers.append((_SCHEMA, STATE.state.encode("ascii")))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _is_ready(self) -> bool:
        fresh = self._fresh_seconds if self._ready else min(_FRESH_SECONDS_UNREADY, self._fresh_seconds)
        if self._clock() - self._checked_at < fresh:
            return self._ready
        if self._running is None:
            self._running = asyncio.create_task(self._ask())
        # Shielded: a caller that gives up must not cancel it for the others.
        return await asyncio.shield(self._running)

    async def _ask(self) -> bool:
        try:
            # Not AnyIO's threads, which may all be waiting for this very database.
            await asyncio.to_thread(self._check)
            ready = True
        except Exception as error:
            ready = False
            if self._ready or self._checked_at == float("-inf"):
                _log.warning("not ready: %s", " ".join(str(error).split()))
        if ready and not self._ready:
            _log.info("ready")
        self._ready, self._checked_at, self._running = ready, self._clock(), None
        return ready
