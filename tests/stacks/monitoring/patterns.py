"""For each alarm of the table: values of its metrics that must make it ring, and some that must not.

One value for each period, the newest last; None where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.stacks.monitoring.cloudwatch import Series

GIB = 1024**3
NOTHING: Series = [None] * 20


@dataclass(frozen=True)
class Pattern:
    """The failure that the alarm is for, and the nearest thing that it must not take for one."""

    rings: Mapping[str, Series]
    silent: Mapping[str, Series]


def once(metric: str, normal: float, wrong: float, *, none_otherwise: bool = False) -> Pattern:
    """It rings while the value stays wrong, and not for one wrong value."""
    usual = None if none_otherwise else normal
    return Pattern({metric: [usual] * 4 + [wrong] * 16}, {metric: [normal] * 10 + [wrong] + [normal] * 9})


def share(errors: str, requests: str, *, many: float, few: float, of: float) -> Pattern:
    """It rings for a share of the requests, and not for the same number among more of them."""
    return Pattern(
        {errors: [None] * 5 + [many] * 15, requests: [of] * 20},
        {errors: [None] * 5 + [few] * 15, requests: [of] * 20},
    )


def gone(metric: str, normal: float) -> Pattern:
    """It rings when the values end, and not for some that are missing."""
    return Pattern({metric: [normal] * 5 + [None] * 25}, {metric: [normal] * 10 + [None] + [normal] * 9})


PATTERNS: Mapping[str, Pattern] = {
    "NoHealthyHosts": Pattern(
        {"HealthyHostCount": [1.0] * 10 + [0.0] * 10},
        {"HealthyHostCount": [1.0] * 10 + [0.0] * 2 + [1.0] * 3},
    ),
    "FewHealthyHosts": gone("HealthyHostCount", 4.0),
    "TargetErrors": share("HTTPCode_Target_5XX_Count", "RequestCount", many=60, few=40, of=1000),
    "LoadBalancerErrors": once("HTTPCode_ELB_5XX_Count", 0, 40, none_otherwise=True),
    "ConnectionErrors": once("TargetConnectionErrorCount", 0, 40, none_otherwise=True),
    "SlowAnswers": once("TargetResponseTime", 0.2, 2.5),
    "ClientErrors": share("HTTPCode_Target_4XX_Count", "RequestCount", many=600, few=400, of=1000),
    "RejectedConnections": once("RejectedConnectionCount", 0, 1, none_otherwise=True),
    "TaskCpu": once("CPUUtilization", 60, 97),
    "TaskMemory": once("MemoryUtilization", 60, 97),
    "ServerErrors": share("ServerErrors", "Requests", many=60, few=40, of=1000),
    "ServerSilent": gone("Uptime", 5000),
    "TaskRestarts": Pattern(
        {"Uptime": [9000.0] * 5 + [60, 200, 20, 120, 30]}, {"Uptime": [9000.0] * 5 + [60, 360, 660, 60, 360]}
    ),
    "KeysOld": once("KeysAge", 600, 4000),
    # Hourly: a failure that lasts, and one that is over in an hour.
    "CanaryFailed": Pattern(
        {"CanarySucceeded": [1.0, None, None, None, 0.0, None, None, None, 0.0, None, None]},
        {"CanarySucceeded": [0.0, None, None, None, 1.0, None, None, None, 1.0, None, None, None]},
    ),
    "CanarySilent": gone("CanarySucceeded", 1),
    "SchemaBehind": once("SchemaCurrent", 1, 0),
    "DatabaseErrors": once("DatabaseErrors", 0, 30),
    "DatabaseWait": once("DatabaseWait", 40, 20_000),
    "OldestTransaction": once("OldestTransaction", 2, 2000),
    "FastPathOff": once("FastPathServing", 1, 0),
    "ScratchFull": once("ScratchFree", 20 * GIB, 0.1 * GIB),
    "SealingLate": once("SealingOldest", 30, 1000),
    "EventsLate": once("EventsOldest", 30, 1000),
    "EventsUndelivered": Pattern(
        {"ApproximateNumberOfMessagesVisible": [0.0, 0.0, 1.0]},
        {"ApproximateNumberOfMessagesVisible": [0.0, None, 0.0]},
    ),
    "SealingFailed": once("SealingFailed", 0, 1),
    "AuditUndelivered": Pattern(
        {"AuditUndelivered": [0.0, 0.0, 1.0]}, {"AuditUndelivered": [0.0, None, 0.0]}
    ),
    "RefusedPrincipal": once("RefusedOfOnePrincipal", 3, 400),
    # 91 % of dev's, and more than prod's.
    "DatabaseConnections": Pattern(
        {"DatabaseConnections": [100000.0] * 20}, {"DatabaseConnections": [20.0] * 20}
    ),
    "DatabaseSilent": gone("CPUUtilization", 3),
    "DatabaseCpu": once("CPUUtilization", 60, 97),
    "DatabaseMemory": once("FreeableMemory", 64 * GIB, 0.02 * GIB),
    "DatabaseStorage": once("FreeStorageSpace", 50 * GIB, 0.5 * GIB),
    "DatabaseStorageDays": Pattern(
        # 1 GiB in six hours, 8 GiB left: two days; and 100 GiB left.
        {"FreeStorageSpace": [(16 - each) * GIB for each in range(9)]},
        {"FreeStorageSpace": [(108 - each) * GIB for each in range(9)]},
    ),
    "DatabaseLocalStorage": once("FreeLocalStorage", 30 * GIB, GIB),
    "DatabaseLatency": once("WriteLatency", 0.002, 0.2),
    "ReplicaLag": once("AuroraReplicaLag", 20, 60_000),
    "BucketErrors": share("5xxErrors", "AllRequests", many=60, few=40, of=1000),
    "BucketRefusals": share("4xxErrors", "AllRequests", many=600, few=400, of=1000),
    "NatPorts": once("ErrorPortAllocation", 0, 3, none_otherwise=True),
    "CertificateMonth": Pattern({"DaysToExpiry": [31.0, 30.0, 29.0]}, {"DaysToExpiry": [60.0, 50.0, 31.0]}),
    "CertificateWeek": Pattern({"DaysToExpiry": [8.0, 7.0, 6.0]}, {"DaysToExpiry": [10.0, 9.0, 8.0]}),
}
