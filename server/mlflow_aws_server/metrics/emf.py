"""A minute of one process as a line in CloudWatch's embedded metric format.

CloudWatch Logs makes metrics of such a line by itself; the task needs no right and no agent for it.
Source: CloudWatch User Guide, "Specification: Embedded metric format": an array of a metric has at most 100
values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_aws_server.metrics.names import TABLE
from mlflow_aws_server.metrics.recorder import Counted, summed
from mlflow_aws_server.progress import DIMENSION, NAMESPACE

_MOST_VALUES = 100


def values(minute: Counted) -> dict[str, object]:
    """The metrics of a minute, by name, and what else its line tells."""
    calls, counts = minute.calls.items(), minute.counts
    failed = {call: n for call, n in calls if call.status >= 500 and not call.throttled}
    principal, refusals = max(minute.refused.items(), key=lambda item: item[1], default=(None, 0))
    found: dict[str, object] = {
        "Requests": sum(minute.calls.values()),
        "ServerErrors": sum(failed.values()),
        "Throttled": sum(n for call, n in calls if call.throttled),
        "Refused": sum(n for call, n in calls if call.status in (401, 403)),
        "RefusedOfOnePrincipal": refusals,
        "DatabaseWait": round(minute.longest_wait * 1000, 1),
        **{name: counts[name] for name in ("DatabaseErrors", "FastPathFallbacks", "AuditUndelivered")},
    }
    if principal is not None:
        found["refused_principal"] = principal
    if failed:
        call = max(failed, key=failed.__getitem__)
        found["failing"] = {**call._asdict(), "calls": failed[call]}
    if minute.spent:
        found["busiest"] = _busiest(minute)
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


def _busiest(minute: Counted) -> dict[str, object]:
    """The route that took most of the time in all."""
    routes = summed((key[:2], spent) for key, spent in minute.spent.items())
    (method, route), (calls, spent) = max(routes.items(), key=lambda item: item[1][1])
    return {"method": method, "route": route, "calls": calls, "seconds": round(spent, 3)}


def _latency(minute: Counted) -> list[float]:
    """The latencies in milliseconds, in order: each of a few, or those at even ranks among many."""
    classes = summed((key[2], spent) for key, spent in minute.spent.items())
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
