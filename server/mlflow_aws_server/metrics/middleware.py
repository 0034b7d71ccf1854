"""Counts every request behind `/ready`, and writes a line of metrics each minute and at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from mlflow_aws_server.asgi import PRINCIPAL, ROUTE, App, Message, Receive, Scope, Send, header_values
from mlflow_aws_server.metrics import emf
from mlflow_aws_server.metrics.recorder import METRICS, Call, Recorder

Probe = Callable[[], Awaitable[Mapping[str, object]]]
"""Gives values as of now, by names of the table; of other names, what the line is to tell beside them."""

_MINUTE_SECONDS = 60.0
# The line waits for no database.
_PROBE_SECONDS = 10.0
_CLIENT_GONE = 499

_log = logging.getLogger("mlflow_aws_server.metrics")


class Measured:
    """The application `app`, measured; everything behind it counts with `METRICS`."""

    def __init__(
        self,
        app: App,
        *,
        deployment: str | None,
        probes: Iterable[Probe] = (),
        recorder: Recorder = METRICS,
        seconds: float = _MINUTE_SECONDS,
    ) -> None:
        """`deployment` is the metrics' dimension; without one no line is written."""
        self._app = app
        self._deployment = deployment
        self._probes = tuple(probes)
        self._recorder = recorder
        self._seconds = seconds
        self._writer: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, self._with_lines(send) if scope["type"] == "lifespan" else send)
            return
        began = ended = time.perf_counter()
        status = 0
        throttled = False

        # No coroutine of its own: the hot path passes here.
        def send_and_see(message: Message) -> Any:
            nonlocal ended, status, throttled
            if message["type"] == "http.response.start":
                ended = time.perf_counter()
                status = message["status"]
                if status in (429, 503):
                    throttled = status == 429 or bool(header_values(message, b"retry-after"))
            return send(message)

        try:
            await self._app(scope, receive, send_and_see)
        except Exception:
            status = status or 500
            raise
        finally:
            if ended == began:
                ended = time.perf_counter()
            route, principal = scope.get(ROUTE), scope.get(PRINCIPAL)
            self._recorder.call(
                Call(
                    route.method if route else "",
                    route.path if route else "",
                    principal.lane if principal else "",
                    principal.role if principal else "",
                    status or _CLIENT_GONE,
                    throttled,
                ),
                ended - began,
            )

    def _with_lines(self, send: Send) -> Send:
        async def send_with_lines(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete" and self._deployment is not None:
                self._writer = asyncio.create_task(self._write_for_ever())
            elif message["type"].startswith("lifespan.shutdown.") and self._writer is not None:
                self._writer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._writer
                # The last requests of the process; what it is asked about has ended by now.
                self._write({})
            await send(message)

        return send_with_lines

    async def _write_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            self._write(await self.now())

    async def now(self) -> dict[str, object]:
        """Every value as of now; what cannot be had in a moment is left out."""
        found: dict[str, object] = {
            "Uptime": round(time.monotonic() - self._recorder.started),
            "ScratchFree": shutil.disk_usage(tempfile.gettempdir()).free,
        }
        for probe in self._probes:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    found.update(await probe())
            except Exception as error:
                _log.warning("a metric could not be read: %r", error)
        return found

    def _write(self, found: Mapping[str, object]) -> None:
        minute = self._recorder.end_minute()
        assert self._deployment is not None  # noqa: S101 - or no line is written
        fields = emf.line(self._deployment, {**emf.values(minute), **found}, now=time.time())
        _log.info("metrics of a minute", extra={"fields": fields})
