"""The server's metrics; docs/metrics.md says what each means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class EmittedMetric(NamedTuple):
    """`statistic` is the one that says something over all processes of a deployment."""

    unit: str
    statistic: str


TABLE: Mapping[str, EmittedMetric] = {
    "Requests": EmittedMetric("Count", "Sum"),
    "ServerErrors": EmittedMetric("Count", "Sum"),
    "Throttled": EmittedMetric("Count", "Sum"),
    "Refused": EmittedMetric("Count", "Sum"),
    "RefusedOfOnePrincipal": EmittedMetric("Count", "Maximum"),
    "DatabaseWait": EmittedMetric("Milliseconds", "Maximum"),
    "DatabaseErrors": EmittedMetric("Count", "Sum"),
    "FastPathFallbacks": EmittedMetric("Count", "Sum"),
    "AuditUndelivered": EmittedMetric("Count", "Sum"),
    "FastPathServing": EmittedMetric("None", "Minimum"),
    "KeysAge": EmittedMetric("Seconds", "Maximum"),
    "SchemaCurrent": EmittedMetric("None", "Minimum"),
    "SealingBacklog": EmittedMetric("Count", "Maximum"),
    "SealingOldest": EmittedMetric("Seconds", "Maximum"),
    "SealingFailed": EmittedMetric("Count", "Maximum"),
    "OldestTransaction": EmittedMetric("Seconds", "Maximum"),
    "EventsBacklog": EmittedMetric("Count", "Maximum"),
    "EventsOldest": EmittedMetric("Seconds", "Maximum"),
    "ScratchFree": EmittedMetric("Bytes", "Minimum"),
    "Uptime": EmittedMetric("Seconds", "Minimum"),
    # Last: Logs Insights finds 200 fields of a line, and each of up to 100 values is one.
    "Latency": EmittedMetric("Milliseconds", "p99"),
}
