"""Counts requests behind `/ready`, writes a line each minute and at the end, and tells all when asked."""

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
from mlflow_aws_server.metrics import emf, prometheus, task
from mlflow_aws_server.metrics.recorder import METRICS, Call, Recorder

State = Callable[[], Mapping[str, object]]
"""Gives what the process knows without asking anybody."""

Probe = Callable[[], Awaitable[Mapping[str, object]]]
"""Gives values as of now, by names of the table; of other names, what the line is to tell beside them."""

_MINUTE_SECONDS = 60.0
# The line waits for no database.
_PROBE_SECONDS = 10.0
# How old what another process of the task tells may be; later it is not alive.
_SHARE_SECONDS = 2.0
_ALIVE_SECONDS = 10 * _SHARE_SECONDS
_CLIENT_GONE = 499

_log = logging.getLogger("mlflow_aws_server.metrics")


class Measured:
    """The application `app`, measured; everything behind it counts with `METRICS`."""

    def __init__(
        self,
        app: App,
        *,
        deployment: str | None,
        state: State = dict,
        probes: Iterable[Probe] = (),
        recorder: Recorder = METRICS,
        slots: task.Slots | None = None,
        seconds: float = _MINUTE_SECONDS,
    ) -> None:
        """`deployment` is the metrics' dimension; without one no line is written.

        `slots` are those of the task's processes, by default of this one alone.
        """
        self._app = app
        self._deployment = deployment
        self._state = state
        self._probes = tuple(probes)
        self._probed: dict[str, object] = {}
        self._recorder = recorder
        self._slots = slots or task.slots()
        self._slot = task.own_slot()
        self._seconds = seconds
        self._upkeep: list[asyncio.Task[None]] = []

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

    def exposition(self) -> bytes:
        """What all processes of the task have counted and say, in Prometheus's format."""
        total, living = self._recorder.total(), {self._slot: self._said()}
        for slot, document in self._slots.all() if self._slots else ():
            if slot != self._slot:
                counted, said = task.decode(document)
                total.add(counted)
                if time.time() - said["at"] < _ALIVE_SECONDS:
                    living[slot] = said
        return prometheus.text(total, dict(sorted(living.items())))

    def _with_lines(self, send: Send) -> Send:
        async def send_with_lines(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._succeed()
                self._upkeep = [asyncio.create_task(self._each_minute()), asyncio.create_task(self._share())]
            elif message["type"].startswith("lifespan.shutdown."):
                for upkeep in self._upkeep:
                    upkeep.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await upkeep
                # The last requests of the process; what it would ask has ended by now.
                self._write({})
                self._publish(at=0.0)
            await send(message)

        return send_with_lines

    def _succeed(self) -> None:
        """Go on counting from where the process ended whose place this one takes."""
        # The recorder may have been made before this process was forked.
        self._recorder.started = time.monotonic()
        if self._slots is not None and (document := self._slots.read(self._slot)) is not None:
            self._recorder.past.add(task.decode(document)[0])

    async def _each_minute(self) -> None:
        while True:
            self._probed = await self._probe()
            await asyncio.sleep(self._seconds)
            self._write(self._said())

    async def _share(self) -> None:
        while True:
            self._publish(at=time.time())
            await asyncio.sleep(_SHARE_SECONDS)

    def _publish(self, *, at: float) -> None:
        if self._slots is not None:
            document = task.encode(self._recorder.total(), at=at, **self._said())
            with contextlib.suppress(ValueError):
                self._slots.write(self._slot, document)

    async def _probe(self) -> dict[str, object]:
        """What others have to be asked for; what they do not tell in a moment is left out."""
        found: dict[str, object] = {}
        for probe in self._probes:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    found.update(await probe())
            except Exception as error:
                _log.warning("a metric could not be read: %r", error)
        return found

    def _said(self) -> dict[str, object]:
        return {
            "Uptime": round(time.monotonic() - self._recorder.started),
            "ScratchFree": shutil.disk_usage(tempfile.gettempdir()).free,
            "waiting": self._recorder.waiting,
            **self._state(),
            **self._probed,
        }

    def _write(self, said: Mapping[str, object]) -> None:
        minute = self._recorder.end_minute()
        if self._deployment is not None:
            fields = emf.line(self._deployment, {**emf.values(minute), **said}, now=time.time())
            _log.info("metrics of a minute", extra={"fields": fields})
