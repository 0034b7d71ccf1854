"""Every metric of the server; `python -m mlflow_aws_server.metrics.names` prints them for docs/metrics.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple

NAMESPACE = "MLflowOnAws"
DIMENSION = "Deployment"
"""The only one: each combination of a metric and a dimension's value costs 0.30 USD a month."""


class Metric(NamedTuple):
    """`statistic` is the one that says something over all processes of a deployment."""

    unit: str
    statistic: str
    meaning: str
    of_a_minute: bool = False
    """Whether it is about the minute that has ended; others are as of now."""


TABLE: Mapping[str, Metric] = {
    "Requests": Metric(
        "Count", "Sum", "Requests that were answered, or given up by their client. Not `/ready`.", True
    ),
    "ServerErrors": Metric(
        "Count", "Sum", "Answers of 500 and more, but for those that count as `Throttled`.", True
    ),
    "Throttled": Metric(
        "Count",
        "Sum",
        "Callers told when to come back: 429, and 503 with `Retry-After` (shares, a drain, contention).",
        True,
    ),
    "Refused": Metric("Count", "Sum", "Answers of 401 and 403.", True),
    "RefusedOfOnePrincipal": Metric(
        "Count",
        "Maximum",
        "Answers of 401 and 403 to the verified principal that got most of them from one process; the line's "
        "field `refused_principal` names it. Beyond 1,000 principals in a minute, the rest count as one.",
        True,
    ),
    "DatabaseWait": Metric(
        "Milliseconds",
        "Maximum",
        "The longest that a call waited for a database connection, or for a thread of MLflow's with one.",
        True,
    ),
    "DatabaseErrors": Metric(
        "Count",
        "Sum",
        "Failures of the database: out of reach, a connection lost, a statement cancelled. Not what a caller "
        "caused, not lost races, no refusal in a drain.",
        True,
    ),
    "FastPathFallbacks": Metric(
        "Count",
        "Sum",
        "Calls of the fast path's routes that it left to stock MLflow while it served; the line's field "
        "`left_to_stock` says why.",
        True,
    ),
    "AuditUndelivered": Metric(
        "Count", "Sum", "Audit lines that went to the application's log instead of the audit log.", True
    ),
    "FastPathServing": Metric(
        "None",
        "Minimum",
        "1 if the fast path serves, else 0; the line's field `fast_path` says why not. Missing where it is "
        "turned off by configuration.",
    ),
    "KeysAge": Metric(
        "Seconds",
        "Maximum",
        "Since the keys of the account's own issuer, or of the user pool, were fetched well: the older "
        "ones. They are fetched each ten minutes and trusted for a day.",
    ),
    "SchemaCurrent": Metric(
        "None",
        "Minimum",
        "1 if the database has this server's schema, else 0; the line's fields `schema` and "
        "`schema_head` say which.",
    ),
    "SealingBacklog": Metric("Count", "Maximum", "Versions that are to be sealed and are not yet."),
    "SealingOldest": Metric(
        "Seconds", "Maximum", "How long the oldest of them has waited, since the process first saw it."
    ),
    "SealingFailed": Metric("Count", "Maximum", "Versions that cannot be sealed, until they are deleted."),
    "OldestTransaction": Metric(
        "Seconds",
        "Maximum",
        "Age of the oldest transaction of the server's own database role: when others began, PostgreSQL "
        "does not show it.",
    ),
    "EventsBacklog": Metric("Count", "Maximum", "Events that are not delivered yet."),
    "EventsOldest": Metric("Seconds", "Maximum", "Age of the oldest of them."),
    "ScratchFree": Metric("Bytes", "Minimum", "Free bytes of the directory for temporary files."),
    "Uptime": Metric(
        "Seconds", "Minimum", "Since the process started: small values again and again are restarts."
    ),
    # Last: Logs Insights finds 200 fields of a line, and each of up to 100 values is one.
    "Latency": Metric(
        "Milliseconds",
        "p99",
        "From a request's head to its answer's. Up to 100 values a minute and process, drawn evenly by rank.",
        True,
    ),
}


def as_markdown() -> str:
    """The table, in its order."""
    lines = ["| Metric | Unit | Statistic | Of | Meaning |", "|---|---|---|---|---|"]
    for name, (unit, statistic, meaning, of_a_minute) in TABLE.items():
        of = "the minute" if of_a_minute else "now"
        lines.append(f"| `{name}` | {unit} | {statistic} | {of} | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
