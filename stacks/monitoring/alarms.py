"""The table of alarms: what is watched, from which value on, and whom it wakes.

A row's section in docs/runbook.md has its name. `page`: somebody sees to it now; `ticket`: on a working day.
An alarm acts only through its cause, so that one cause pages once (`causes.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from stacks.config import GIB_PER_ACU, EnvironmentConfig, instance_memory_gib

GIB = 1024**3
OWN = "MLflowOnAws"
"""The namespace of the metrics that the platform itself makes."""

# Whose metrics they are; `causes.py` is told the dimensions of each.
Subject = Literal[
    "balancer",
    "targets",
    "service",
    "database",
    "reader",
    "bucket",
    "size",
    "certificate",
    "undelivered",
    "server",
]
NAMESPACES: Mapping[Subject, str] = {
    "balancer": "AWS/ApplicationELB",
    "targets": "AWS/ApplicationELB",
    "service": "AWS/ECS",
    "database": "AWS/RDS",
    "reader": "AWS/RDS",
    "bucket": "AWS/S3",
    "size": "AWS/S3",
    "certificate": "AWS/CertificateManager",
    "undelivered": "AWS/SQS",
    "server": OWN,
}


@dataclass(frozen=True)
class AlarmMetric:
    """One metric of a subject."""

    subject: Subject
    name: str
    statistic: str


class Of(NamedTuple):
    """So many values, of the last so many, one for each period of so many seconds."""

    datapoints: int
    periods: int
    seconds: int = 60


@dataclass(frozen=True)
class Cause:
    """What pages once, however many of its alarms ring; not while the cause that explains it does."""

    name: str
    meaning: str
    explained_by: Cause | None = None


FOUNDATION = Cause("Foundation", "The database fails, or is about to: everything else follows.")
SERVICE = Cause("Service", "The server does not serve as it should.", explained_by=FOUNDATION)
REACH = Cause("Reach", "Soon nobody reaches the server.")

Threshold = float | Callable[[EnvironmentConfig], float]


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A row. It rings when the value is beyond the threshold for as long as it `lasts`.

    `metrics` are its inputs by the names that `expression` (CloudWatch's metric math) uses; without one, the
    only input is the value. `missing`: what a period without a value counts as. The other two of CloudWatch's
    treatments are not used: they keep an alarm in whichever state it happened to be in.
    """

    name: str
    meaning: str
    metrics: Mapping[str, AlarmMetric]
    expression: str | None = None
    above: Threshold | None = None
    below: Threshold | None = None
    lasts: Of
    missing: Literal["breaching", "notBreaching"] = "notBreaching"
    severity: Literal["page", "ticket"]
    # What a page is part of; a ticket acts by itself.
    cause: Cause | None = None
    # Rings while a release rolls out: ECS takes the release back.
    rolls_back: bool = False
    applies: Callable[[EnvironmentConfig], bool] = field(default=lambda _: True)


def _on(engine: str) -> Callable[[EnvironmentConfig], bool]:
    return lambda environment: environment.database.engine == engine


def _memory_gib(environment: EnvironmentConfig) -> float:
    database = environment.database
    return (
        GIB_PER_ACU * database.min_acu
        if database.serverless
        else instance_memory_gib(database.instance_class)
    )


ALARMS: tuple[Alarm, ...] = (
    Alarm(
        name="NoHealthyHosts",
        meaning="No task answers the load balancer's health check.",
        metrics={"hosts": AlarmMetric("targets", "HealthyHostCount", "Maximum")},
        below=1,
        lasts=Of(3, 3),
        missing="breaching",
        severity="page",
        cause=SERVICE,
    ),
    Alarm(
        name="FewHealthyHosts",
        meaning="Fewer tasks are healthy than shall always run.",
        metrics={"hosts": AlarmMetric("targets", "HealthyHostCount", "Minimum")},
        below=lambda environment: environment.server.min_tasks,
        lasts=Of(15, 15),
        missing="breaching",
        severity="ticket",
    ),
    Alarm(
        name="TargetErrors",
        meaning="One answer of the server in twenty is an error of the server (5xx).",
        metrics={
            "errors": AlarmMetric("targets", "HTTPCode_Target_5XX_Count", "Sum"),
            "requests": AlarmMetric("targets", "RequestCount", "Sum"),
        },
        # Without a request, or an error, there is no value; below a handful, one error proves nothing.
        expression="IF(FILL(errors, 0) >= 5, 100 * FILL(errors, 0) / requests, 0)",
        above=5,
        lasts=Of(5, 5),
        severity="page",
        cause=SERVICE,
    ),
    Alarm(
        name="LoadBalancerErrors",
        meaning="The load balancer answers for the server: it is gone, or does not answer in time.",
        metrics={"errors": AlarmMetric("balancer", "HTTPCode_ELB_5XX_Count", "Sum")},
        above=10,
        lasts=Of(3, 5),
        severity="page",
        cause=SERVICE,
        rolls_back=True,
    ),
    Alarm(
        name="ConnectionErrors",
        meaning="The load balancer cannot connect to a task.",
        metrics={"errors": AlarmMetric("balancer", "TargetConnectionErrorCount", "Sum")},
        above=10,
        lasts=Of(3, 5),
        severity="ticket",
        rolls_back=True,
    ),
    Alarm(
        name="SlowAnswers",
        meaning="One request in a hundred takes longer than monitoring.slow_seconds.",
        metrics={"seconds": AlarmMetric("targets", "TargetResponseTime", "p99")},
        above=lambda environment: environment.monitoring.slow_seconds,
        lasts=Of(3, 3, seconds=300),
        severity="ticket",
    ),
    Alarm(
        name="ClientErrors",
        meaning="Half of all requests are refused or wrong (4xx): a client loops, or a role was revoked.",
        metrics={
            "errors": AlarmMetric("targets", "HTTPCode_Target_4XX_Count", "Sum"),
            "requests": AlarmMetric("targets", "RequestCount", "Sum"),
        },
        expression="IF(FILL(errors, 0) >= 50, 100 * FILL(errors, 0) / requests, 0)",
        above=50,
        lasts=Of(3, 3, seconds=300),
        severity="ticket",
    ),
    Alarm(
        name="RejectedConnections",
        meaning="The load balancer is at its limit of connections.",
        metrics={"connections": AlarmMetric("balancer", "RejectedConnectionCount", "Sum")},
        above=0,
        lasts=Of(3, 5),
        severity="ticket",
    ),
    Alarm(
        name="TaskCpu",
        meaning="The tasks' CPU is used up, and autoscaling does not help.",
        metrics={"percent": AlarmMetric("service", "CPUUtilization", "Average")},
        above=90,
        lasts=Of(3, 3, seconds=300),
        severity="ticket",
    ),
    Alarm(
        name="TaskMemory",
        meaning="A task is about to be out of memory, and to be killed.",
        metrics={"percent": AlarmMetric("service", "MemoryUtilization", "Maximum")},
        above=90,
        lasts=Of(5, 5),
        severity="ticket",
    ),
    Alarm(
        name="ServerErrors",
        meaning="One request in twenty fails in the server; who is told to come back later does not count.",
        metrics={
            "errors": AlarmMetric("server", "ServerErrors", "Sum"),
            "requests": AlarmMetric("server", "Requests", "Sum"),
        },
        expression="IF(errors >= 5, 100 * errors / requests, 0)",
        above=5,
        lasts=Of(3, 3),
        severity="page",
        cause=SERVICE,
        rolls_back=True,
    ),
    Alarm(
        name="ServerSilent",
        meaning="No task writes its metrics: none runs, or none reaches AWS (the NAT, its log).",
        metrics={"seconds": AlarmMetric("server", "Uptime", "Maximum")},
        below=0,
        lasts=Of(10, 10),
        missing="breaching",
        severity="page",
        cause=SERVICE,
    ),
    Alarm(
        name="TaskRestarts",
        meaning="Server processes begin again and again.",
        metrics={"seconds": AlarmMetric("server", "Uptime", "Minimum")},
        below=300,
        # A deployment, or a task that is added, counts once or twice.
        lasts=Of(4, 6, seconds=300),
        severity="ticket",
    ),
    Alarm(
        name="KeysOld",
        meaning="For an hour the issuer's keys could not be fetched; after a day nobody signs in.",
        metrics={"seconds": AlarmMetric("server", "KeysAge", "Maximum")},
        above=3600,
        lasts=Of(5, 5),
        severity="page",
        cause=SERVICE,
    ),
    Alarm(
        name="CanaryFailed",
        meaning="Two runs of the canary in two hours found broken what a data scientist needs.",
        metrics={"succeeded": AlarmMetric("server", "CanarySucceeded", "Minimum")},
        below=1,
        # Of at most eight runs, or of two.
        lasts=Of(2, 8, seconds=900),
        severity="page",
        cause=SERVICE,
        applies=lambda environment: environment.canary.enabled,
    ),
    Alarm(
        name="CanarySilent",
        meaning="The canary has not run, or not come to an end, for two hours.",
        metrics={"runs": AlarmMetric("server", "CanarySucceeded", "SampleCount")},
        below=1,
        lasts=Of(2, 2, seconds=3600),
        missing="breaching",
        severity="ticket",
        applies=lambda environment: environment.canary.enabled,
    ),
    Alarm(
        name="SchemaBehind",
        meaning="The database's schema is not the one that the server was made for.",
        metrics={"current": AlarmMetric("server", "SchemaCurrent", "Minimum")},
        below=1,
        lasts=Of(15, 15),
        severity="ticket",
    ),
    Alarm(
        name="DatabaseErrors",
        meaning="The server's statements fail: the database is out of reach, or loses connections.",
        metrics={"errors": AlarmMetric("server", "DatabaseErrors", "Sum")},
        above=5,
        lasts=Of(3, 5),
        severity="page",
        cause=FOUNDATION,
    ),
    Alarm(
        name="DatabaseWait",
        meaning="Calls wait five seconds for a connection to the database: the queue is full.",
        metrics={"milliseconds": AlarmMetric("server", "DatabaseWait", "Maximum")},
        above=5000,
        lasts=Of(5, 5),
        severity="ticket",
    ),
    Alarm(
        name="OldestTransaction",
        meaning="A transaction of the server is open for half an hour; PostgreSQL keeps what it might see.",
        metrics={"seconds": AlarmMetric("server", "OldestTransaction", "Maximum")},
        above=1800,
        lasts=Of(5, 5),
        severity="ticket",
    ),
    Alarm(
        name="FastPathOff",
        meaning="The fast path is on by configuration and does not serve; stock MLflow does, slower.",
        metrics={"serving": AlarmMetric("server", "FastPathServing", "Minimum")},
        below=1,
        lasts=Of(15, 15),
        severity="ticket",
        applies=lambda environment: environment.server.fast_path,
    ),
    Alarm(
        name="ScratchFull",
        meaning="A task has less than 256 MiB of temporary storage left.",
        metrics={"bytes": AlarmMetric("server", "ScratchFree", "Minimum")},
        below=GIB / 4,
        lasts=Of(5, 5),
        severity="ticket",
    ),
    Alarm(
        name="SealingLate",
        meaning="A registered version has waited a quarter of an hour to be sealed: it can still be changed.",
        metrics={"seconds": AlarmMetric("server", "SealingOldest", "Maximum")},
        above=900,
        lasts=Of(5, 5),
        severity="ticket",
    ),
    Alarm(
        name="SealingFailed",
        meaning="A registered version cannot be sealed: its files are not there, or not whole.",
        metrics={"versions": AlarmMetric("server", "SealingFailed", "Maximum")},
        above=0,
        lasts=Of(5, 5),
        severity="ticket",
    ),
    Alarm(
        name="AuditUndelivered",
        meaning="Audit lines went to the server's own log, where whoever runs the server could change them.",
        metrics={"lines": AlarmMetric("server", "AuditUndelivered", "Sum")},
        above=0,
        lasts=Of(1, 1),
        severity="ticket",
    ),
    Alarm(
        name="EventsLate",
        meaning="An event has waited a quarter of an hour for EventBridge: who acts on it does not know yet.",
        metrics={"seconds": AlarmMetric("server", "EventsOldest", "Maximum")},
        above=900,
        lasts=Of(5, 5),
        severity="ticket",
    ),
    Alarm(
        name="EventsUndelivered",
        meaning="A target took no event for a day; what it did not take is kept for two weeks in a queue.",
        metrics={"events": AlarmMetric("undelivered", "ApproximateNumberOfMessagesVisible", "Maximum")},
        above=0,
        lasts=Of(1, 1, seconds=300),
        severity="ticket",
        applies=lambda environment: environment.events.has_targets,
    ),
    Alarm(
        name="RefusedPrincipal",
        meaning="One caller, whose token is good, is refused a hundred times a minute.",
        metrics={"refusals": AlarmMetric("server", "RefusedOfOnePrincipal", "Maximum")},
        above=100,
        lasts=Of(3, 5),
        severity="ticket",
    ),
    Alarm(
        name="DatabaseConnections",
        meaning="Nearly every connection that PostgreSQL accepts is taken.",
        metrics={"connections": AlarmMetric("database", "DatabaseConnections", "Maximum")},
        above=lambda environment: 0.9 * environment.database.max_connections,
        lasts=Of(5, 5),
        severity="page",
        cause=FOUNDATION,
    ),
    Alarm(
        name="DatabaseSilent",
        meaning="RDS says nothing of the database any more: it is stopped, restarting, or gone.",
        metrics={"percent": AlarmMetric("database", "CPUUtilization", "Average")},
        below=0,
        lasts=Of(5, 5),
        missing="breaching",
        severity="page",
        cause=FOUNDATION,
    ),
    Alarm(
        name="DatabaseCpu",
        meaning="The database's CPU is used up.",
        metrics={"percent": AlarmMetric("database", "CPUUtilization", "Average")},
        above=90,
        lasts=Of(3, 3, seconds=300),
        severity="ticket",
    ),
    Alarm(
        name="DatabaseMemory",
        meaning="The database has less than a twentieth of its memory free.",
        metrics={"bytes": AlarmMetric("database", "FreeableMemory", "Average")},
        below=lambda environment: 0.05 * _memory_gib(environment) * GIB,
        lasts=Of(3, 3, seconds=300),
        severity="ticket",
    ),
    Alarm(
        name="DatabaseStorage",
        meaning="The database's storage is nearly full, and autoscaling has not helped.",
        metrics={"bytes": AlarmMetric("database", "FreeStorageSpace", "Minimum")},
        # RDS grows the storage when less than a tenth is free.
        below=lambda environment: 0.05 * environment.database.storage_gib * GIB,
        lasts=Of(3, 3, seconds=300),
        severity="page",
        cause=FOUNDATION,
        applies=_on("postgresql"),
    ),
    Alarm(
        name="DatabaseStorageDays",
        meaning="At this pace the storage that the database has now is full in three days.",
        metrics={"bytes": AlarmMetric("database", "FreeStorageSpace", "Average")},
        expression="IF(RATE(bytes) < 0, bytes / (0 - 86400 * RATE(bytes)), 3650)",
        below=3,
        lasts=Of(3, 4, seconds=21600),
        severity="ticket",
        applies=_on("postgresql"),
    ),
    Alarm(
        name="DatabaseLocalStorage",
        meaning="Aurora's instance is short of local storage: sorting and building indexes fail.",
        metrics={"bytes": AlarmMetric("database", "FreeLocalStorage", "Minimum")},
        below=2 * GIB,
        lasts=Of(3, 3, seconds=300),
        severity="ticket",
        # A serverless instance's local storage follows its capacity.
        applies=lambda environment: _on("aurora")(environment) and not environment.database.serverless,
    ),
    Alarm(
        name="DatabaseLatency",
        meaning="A write to the database's storage takes 50 ms.",
        metrics={"seconds": AlarmMetric("database", "WriteLatency", "Average")},
        above=0.05,
        lasts=Of(3, 3, seconds=300),
        severity="ticket",
    ),
    Alarm(
        name="ReplicaLag",
        meaning="Aurora's readers are 10 seconds behind: people search in what was.",
        metrics={"milliseconds": AlarmMetric("reader", "AuroraReplicaLag", "Maximum")},
        above=10_000,
        lasts=Of(5, 5),
        severity="ticket",
        applies=lambda environment: environment.database.readers > 0,
    ),
    Alarm(
        name="BucketErrors",
        meaning="S3 itself fails one request in twenty.",
        metrics={
            "errors": AlarmMetric("bucket", "5xxErrors", "Sum"),
            "requests": AlarmMetric("bucket", "AllRequests", "Sum"),
        },
        expression="IF(FILL(errors, 0) >= 5, 100 * FILL(errors, 0) / requests, 0)",
        above=5,
        lasts=Of(3, 3, seconds=300),
        severity="ticket",
        applies=lambda environment: environment.artifacts.request_metrics,
    ),
    Alarm(
        name="BucketRefusals",
        meaning="S3 refuses half of all requests (4xx): a policy of the bucket, the key or a role is wrong.",
        metrics={
            "errors": AlarmMetric("bucket", "4xxErrors", "Sum"),
            "requests": AlarmMetric("bucket", "AllRequests", "Sum"),
        },
        expression="IF(FILL(errors, 0) >= 20, 100 * FILL(errors, 0) / requests, 0)",
        above=50,
        lasts=Of(3, 3, seconds=300),
        severity="ticket",
        applies=lambda environment: environment.artifacts.request_metrics,
    ),
    Alarm(
        name="NatPorts",
        meaning="A NAT gateway of this account and region has no port left for new connections.",
        metrics={},
        # By a query: the gateway's id, exported to this stack, would keep `network.nat` from changing.
        expression='SELECT MAX(ErrorPortAllocation) FROM SCHEMA("AWS/NATGateway", NatGatewayId)',
        above=0,
        lasts=Of(3, 5),
        severity="ticket",
        applies=lambda environment: environment.network.nat == "gateway" and not environment.network.existing,
    ),
    Alarm(
        name="CertificateMonth",
        meaning="The certificate ends within 30 days, and was not renewed at 60.",
        metrics={"days": AlarmMetric("certificate", "DaysToExpiry", "Minimum")},
        below=30,
        lasts=Of(1, 1, seconds=86400),
        severity="ticket",
    ),
    Alarm(
        name="CertificateWeek",
        meaning="The certificate ends within a week; then nobody connects.",
        metrics={"days": AlarmMetric("certificate", "DaysToExpiry", "Minimum")},
        below=7,
        lasts=Of(1, 1, seconds=86400),
        severity="page",
        cause=REACH,
    ),
)
