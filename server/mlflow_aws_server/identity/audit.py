"""One JSON line for each request that changes something, is refused, or gets a presigned URL."""

from __future__ import annotations

import datetime as dt
import logging
import re
import time
from typing import Any
from urllib.parse import parse_qsl

import orjson

from mlflow_aws_server import logs
from mlflow_aws_server.asgi import Scope, header_values
from mlflow_aws_server.events.refusals import REFUSALS
from mlflow_aws_server.identity.access import Route
from mlflow_aws_server.identity.audit_log import AuditLog
from mlflow_aws_server.identity.errors import AccessDeniedError
from mlflow_aws_server.identity.roles import Principal
from mlflow_aws_server.metrics import METRICS

OBJECT = "mlflow_aws.object"
"""Key of the ASGI scope: a dict in which inner applications note what a request is about."""

LARGEST_BODY = 128 * 1024
"""Request and response bodies of more bytes are not read."""

# Top-level fields that name an object of MLflow; everything else may be private.
_NAMES = (
    "experiment_id", "run_id", "run_uuid", "model_id", "name", "new_name", "version", "alias", "stage",
    "dataset_id", "trace_id", "request_id", "issue_id", "queue_id", "schema_id",
)  # fmt: skip
# Some 6,000 bytes, if every character needs an escape: the first limit at which a line fits is taken.
_LONGEST_NAMES = (1024, 200, 100, 50, 20, 10, 0)
_LONGEST_NAME = 200
_LONGEST_PATH = 256
_LONGEST_METHOD = 32
# No segment of a route is as long; a token that a client put into a path is.
_LONGEST_SEGMENT = 64
# Provenance, behind the gate, refuses too: forged evidence or figures, a condition that does not hold.
_REFUSALS = frozenset((401, 403, 409, 412))
_TRACE_ID = re.compile(rb"[A-Za-z0-9=;:_-]{1,256}")

_log = logging.getLogger("mlflow_aws_server.identity")


class AuditRecord:
    """What is known of one request, until its line is written."""

    __slots__ = (
        "_log", "_written", "answer", "body", "found", "method", "path", "principal", "route", "scope",
        "started", "status",
    )  # fmt: skip

    def __init__(
        self, log: AuditLog, scope: Scope, *, principal: Principal | None, route: Route | None
    ) -> None:
        self._log = log
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.principal = principal
        self.route = route
        self.started = time.perf_counter()
        self.status: int | None = None
        self.body: bytearray | None = bytearray()
        self.answer: bytearray | None = bytearray() if route is not None and route.creates else None
        self.found: dict[str, str] = {}
        self._written = False

    async def write(self, refusal: AccessDeniedError | None = None) -> None:
        """Log the line, once. Never raises: the response must not depend on it."""
        reads = self.route is not None and not self.route.changes
        if self._written or (reads and refusal is None and not self.found):
            return
        self._written = True
        if self._outcome(refusal) == "refused":
            who = self.principal.name if self.principal else refusal.principal if refusal else None
            REFUSALS.count(who, refusal.reason if refusal else f"status {self.status}")
        try:
            line = self._line(refusal)
            if self.status in (401, 403) and line["principal"]:
                METRICS.refused(line["principal"])
            await self._log.write(_fitting(line))
        except Exception as error:
            _log.error("an audit line is lost: %r", error)

    def _line(self, refusal: AccessDeniedError | None) -> dict[str, Any]:
        principal, route = self.principal, self.route
        line: dict[str, Any] = {
            **_beginning(self._outcome(refusal), self._log),
            "principal": principal.name if principal else refusal.principal if refusal else None,
            "lane": principal.lane.value if principal else None,
            "role": principal.role if principal else None,
            "method": self.method[:_LONGEST_METHOD],
            "route": route.path if route else None,
            "object": self._object(),
            "status": self.status,
            "ms": round((time.perf_counter() - self.started) * 1000, 2),
            "request_id": _trace_id(self.scope),
        }
        if refusal is not None:
            line["reason"] = refusal.reason
        if route is None:
            line["path"] = _printable(self.path)
        return line

    def _outcome(self, refusal: AccessDeniedError | None) -> str:
        if refusal is not None or self.status in _REFUSALS:
            return "refused"
        if self.status is None or self.status >= 400:
            return "failed"
        return "changed" if self.route is None or self.route.changes else "signed"

    def _object(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.route is not None and (match := self.route.fits(self.path)):
            found["id"] = match[1][:_LONGEST_NAME]
        if self.scope.get("query_string"):
            pairs = parse_qsl(self.scope["query_string"].decode("latin-1"), max_num_fields=50)
            _take(dict(pairs), found)
        if self.body:
            _take(_json(self.body), found)
        if self.answer and self.status == 200:
            _take(_created(_json(self.answer)), found)
        found.update(self.found)
        return found


def event(name: str, log: AuditLog) -> bytes:
    """A line of the process itself: it has `started`, or `ended` in order."""
    return logs.encode(_beginning(name, log)).encode("ascii")


def _beginning(outcome: str, log: AuditLog) -> dict[str, Any]:
    return {
        "audit": outcome,
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        "process": log.process,
        "number": log.number(),
    }


def _fitting(line: dict[str, Any]) -> bytes:
    """The line as JSON. What a client chose (names of objects, a path without route) is cut until it fits."""
    for longest in _LONGEST_NAMES:
        cut = {**line, "object": {name: _cut(value, longest) for name, value in line["object"].items()}}
        if "path" in line:
            cut["path"] = line["path"][: _LONGEST_PATH * min(longest, _LONGEST_NAME) // _LONGEST_NAME]
        if len(text := logs.encode(cut)) < logs.LARGEST_LINE:
            break
    return text.encode("ascii")


def _cut(name: str, longest: int) -> str:
    return logs.printable(name[:longest])


def _json(document: bytearray) -> Any:
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError:
        return None


def _created(answer: Any) -> Any:
    """What MLflow's response says was created: {"run": {"info": {…}}}, {"model_version": {…}}, {…}."""
    for name in ("run", "model", "model_version", "info"):
        if isinstance(answer, dict) and isinstance(answer.get(name), dict):
            answer = answer[name]
    return answer


def _take(source: Any, found: dict[str, str]) -> None:
    if isinstance(source, dict):
        for name in _NAMES:
            value = source.get(name)
            if value and isinstance(value, str | int):
                found[name] = str(value)[:_LONGEST_NAME]


def _trace_id(scope: Scope) -> str | None:
    values = header_values(scope, b"x-amzn-trace-id")
    return values[0].decode("ascii") if values and _TRACE_ID.fullmatch(values[0]) else None


def _printable(path: str) -> str:
    segments = (part if len(part) <= _LONGEST_SEGMENT else "…" for part in path[:_LONGEST_PATH].split("/"))
    return "/".join(segments).encode("ascii", "backslashreplace").decode("ascii")
