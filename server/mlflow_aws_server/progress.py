"""Progress in the log, one line per phase, with fields for CloudWatch and for programs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mlflow_aws_server.logs import encode

NAMESPACE = "MLflowOnAws"
DIMENSION = "Deployment"
"""The only one: each combination of a metric and a dimension's value costs 0.30 USD a month."""

_REPORT_EVERY_SECONDS = 10.0

# Every quote in it is escaped once more; a line has room for 4096 bytes.
_PART = 1800

_log = logging.getLogger("mlflow_aws_server.progress")


def report(event: str, **details: object) -> None:
    """Log one line: the event as its message, the details as fields."""
    _log.info(event, extra={"fields": details})


def metrics(deployment: str, values: Mapping[str, float]) -> dict[str, object]:
    """Fields of a line from which CloudWatch makes metrics of the deployment (its EMF).

    A log group that ECS writes to needs no more: CloudWatch_Embedded_Metric_Format_Generation_PutLogEvents.
    """
    metric = {
        "Namespace": NAMESPACE,
        "Dimensions": [[DIMENSION]],
        "Metrics": [{"Name": name} for name in values],
    }
    return {
        DIMENSION: deployment,
        **{name: round(value, 3) for name, value in values.items()},
        "_aws": {"Timestamp": round(time.time() * 1000), "CloudWatchMetrics": [metric]},
    }


def publish(event: str, document: Mapping[str, object]) -> None:
    """End an operation's log with its result: JSON, in as many lines as it needs, and a last line.

    `operations/task.py` puts it together again.
    """
    text = encode(dict(document))
    for part, begin in enumerate(range(0, len(text), _PART)):
        report(event, phase="report", part=part, text=text[begin : begin + _PART])
    report(event, phase="all", outcome="done")


@contextmanager
def phase(name: str, *, event: str = "migrate") -> Iterator[dict[str, object]]:
    """Report a phase when it ends, with its duration in milliseconds and what the block adds to the dict."""
    details: dict[str, object] = {}
    started = time.monotonic()
    outcome = "failed"
    try:
        yield details
        outcome = "done"
    finally:
        report(event, phase=name, outcome=outcome, ms=round((time.monotonic() - started) * 1000), **details)


class Patience:
    """Waiting for something outside, with an end; a line now and then says for what."""

    def __init__(self, event: str, *, seconds: float, poll: float, **details: object) -> None:
        self.seconds = seconds
        self._event, self._poll, self._details = event, poll, details
        self._started = time.monotonic()
        self._reported = float("-inf")

    @property
    def waited(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._started

    def wait(self, problem: str) -> bool:
        """Wait a little for this problem to pass; False, at once, when there was time enough."""
        now = time.monotonic()
        if now - self._started > self.seconds:
            return False
        if now - self._reported >= _REPORT_EVERY_SECONDS:
            report(self._event, **self._details, waiting=problem, seconds=round(now - self._started))
            self._reported = now
        time.sleep(self._poll)
        return True
