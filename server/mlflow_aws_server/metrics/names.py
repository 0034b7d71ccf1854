"""The server's metrics; docs/metrics.md says what each means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

NAMESPACE = "MLflowOnAws"
DIMENSION = "Deployment"
"""The only one: each combination of a metric and a dimension's value costs 0.30 USD a month."""


class Metric(NamedTuple):
    """`statistic` is the one that says something over all processes of a deployment."""

    unit: str
    statistic: str


TABLE: Mapping[str, Metric] = {
    "Requests": Metric("Count", "Sum"),
    "ServerErrors": Metric("Count", "Sum"),
    "Throttled": Metric("Count", "Sum"),
    "Refused": Metric("Count", "Sum"),
    "RefusedOfOnePrincipal": Metric("Count", "Maximum"),
    "DatabaseWait": Metric("Milliseconds", "Maximum"),
    "DatabaseErrors": Metric("Count", "Sum"),
    "FastPathFallbacks": Metric("Count", "Sum"),
    "AuditUndelivered": Metric("Count", "Sum"),
    "FastPathServing": Metric("None", "Minimum"),
    "KeysAge": Metric("Seconds", "Maximum"),
    "SchemaCurrent": Metric("None", "Minimum"),
    "SealingBacklog": Metric("Count", "Maximum"),
    "SealingOldest": Metric("Seconds", "Maximum"),
    "SealingFailed": Metric("Count", "Maximum"),
    "OldestTransaction": Metric("Seconds", "Maximum"),
    "EventsBacklog": Metric("Count", "Maximum"),
    "EventsOldest": Metric("Seconds", "Maximum"),
    "ScratchFree": Metric("Bytes", "Minimum"),
    "Uptime": Metric("Seconds", "Minimum"),
    # Last: Logs Insights finds 200 fields of a line, and each of up to 100 values is one.
    "Latency": Metric("Milliseconds", "p99"),
}
