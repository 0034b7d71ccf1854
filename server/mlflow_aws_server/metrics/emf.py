"""A minute of one process as a line in CloudWatch's embedded metric format.

CloudWatch Logs makes metrics of such a line by itself; the task needs no right and no agent for it.
Source: CloudWatch User Guide, "Specification: Embedded metric format": an array of a metric has at most 100
values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_aws_server.metrics.names import DIMENSION, NAMESPACE, TABLE
from mlflow_aws_server.metrics.recorder import Counted

_MOST_VALUES = 100


def values(minute: Counted) -> dict[str, object]:
    """The metrics of a minute, by name, and what else its line tells."""
    calls, counts = minute.calls.items(), minute.counts
    principal, refusals = max(minute.refused.items(), key=lambda item: item[1], default=(None, 0))
    found: dict[str, object] = {
        "Requests": sum(minute.calls.values()),
        "ServerErrors": sum(n for call, n in calls if call.status >= 500 and not call.throttled),
        "Throttled": sum(n for call, n in calls if call.throttled),
        "Refused": sum(n for call, n in calls if call.status in (401, 403)),
        "RefusedOfOnePrincipal": refusals,
        "DatabaseWait": round(minute.longest_wait * 1000, 1),
        **{name: counts[name] for name in ("DatabaseErrors", "FastPathFallbacks", "AuditUndelivered")},
    }
    if principal is not None:
        found["refused_principal"] = principal
    if latency := _latency(minute):
        found["Latency"] = latency
    return found


def line(deployment: str, found: Mapping[str, object], *, now: float) -> dict[str, Any]:
    """The fields of the line; what is not in the table of metrics is told beside them."""
    names = [name for name in TABLE if name in found]
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [[DIMENSION]],
        "Metrics": [{"Name": name, "Unit": TABLE[name].unit} for name in names],
    }
    return {
        "_aws": {"Timestamp": round(now * 1000), "CloudWatchMetrics": [directive]},
        DIMENSION: deployment,
        **{name: value for name, value in found.items() if name not in TABLE},
        **{name: found[name] for name in names},
    }


def _latency(minute: Counted) -> list[float]:
    """The latencies in milliseconds, in order: each of a few, or those at even ranks among many."""
    classes: dict[int, tuple[int, float]] = {}
    for (_, _, place), (number, seconds) in minute.spent.items():
        before = classes.get(place, (0, 0.0))
        classes[place] = before[0] + number, before[1] + seconds
    ends: list[tuple[int, float]] = []
    total = 0
    for _, (number, seconds) in sorted(classes.items()):
        total += number
        ends.append((total, round(seconds / number * 1000, 1)))
    drawn = min(total, _MOST_VALUES)
    return [
        next(mean for end, mean in ends if end > (place + 0.5) * total / drawn - 0.5)
        for place in range(drawn)
    ]
