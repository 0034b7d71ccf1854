"""Measures what AWS measures: DB instances, services, certificates; reads what the load balancer counted."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from local.emulator.containers import Runtime
from local.emulator.databases import Databases
from local.emulator.metrics import Datum, PublishedMetrics, datum
from local.parts.postgres import Postgres

# AWS measures each minute; who waits for a metric here waits less.
_EVERY_SECONDS = 5.0
_MINUTE = 60
_GIB = 1024**3
# Clients but this one; reads, writes, and the milliseconds of both since the statistics began.
_ACTIVITY = """
    SELECT (SELECT count(*) FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
           sum(reads)::float8, sum(read_time), sum(writes)::float8, sum(write_time) FROM pg_stat_io
"""


class Measurements:
    """Measures until `stop`, in a thread of its own."""

    def __init__(
        self, metrics: PublishedMetrics, databases: Databases, runtime: Runtime, *, balancer: Path
    ) -> None:
        self._metrics = metrics
        self._databases = databases
        self._runtime = runtime
        self._balancer = balancer
        self._read = 0
        # The CPU seconds of a process and its children, and when they were read.
        self._cpu: dict[int, tuple[float, float]] = {}
        # Of an instance: reads and writes, and their milliseconds.
        self._io: dict[str, tuple[float, ...]] = {}
        self._minute = 0
        self._stopped = threading.Event()

    def start(self, account_id: str, region: str) -> None:
        """Measure what this account has in this region."""
        threading.Thread(
            target=self._measure, args=(account_id, region), daemon=True, name="measurements"
        ).start()

    def stop(self) -> None:
        """Measure no more."""
        self._stopped.set()

    def _measure(self, account_id: str, region: str) -> None:
        from ministack.core.responses import request_scope

        with request_scope(account_id, region):
            while not self._stopped.wait(_EVERY_SECONDS):
                try:
                    self._once()
                except Exception:
                    traceback.print_exc()

    def _once(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._balancer.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    counted = json.loads(line)
                    self._metrics.put(counted["Namespace"], counted["MetricData"])
        processes = _processes()
        self._metrics.put("AWS/RDS", self._of_instances(processes))
        self._metrics.put("AWS/CertificateManager", _of_certificates())
        if (minute := int(time.time() // _MINUTE)) != self._minute:
            # Once, since the number of a service's values is that of its tasks:
            # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cloudwatch-metrics.html
            self._minute = minute
            self._metrics.put("AWS/ECS", self._of_services(processes))
            self._metrics.put("AWS/S3", _of_buckets())

    def _of_instances(self, processes: Mapping[int, _Process]) -> Iterator[Datum]:
        from ministack.services import rds

        for name, instance in list(rds._instances.items()):
            # RDS says nothing of an instance that does not run.
            if instance["DbiResourceId"] not in self._databases or instance["DBInstanceStatus"] == "stopped":
                continue
            server = self._databases.server_of(instance["DbiResourceId"])
            activity = _activity(server)
            if activity is None:
                continue
            clients, *io = activity
            since = [now - then for now, then in zip(io, self._io.get(name, io), strict=True)]
            self._io[name] = tuple(io)
            free = int(instance["AllocatedStorage"]) * _GIB - _size(server.directory / "data")
            for metric, unit, value in (
                ("DatabaseConnections", "Count", clients),
                ("FreeStorageSpace", "Bytes", max(0, free)),
                ("FreeableMemory", "Bytes", _available_memory()),
                ("ReadLatency", "Seconds", since[1] / max(1, since[0]) / 1000),
                ("WriteLatency", "Seconds", since[3] / max(1, since[2]) / 1000),
                ("CPUUtilization", "Percent", self._percent(_postmaster(server), processes, cpus=2)),
            ):
                if value is not None:
                    yield datum(metric, value, unit=unit, DBInstanceIdentifier=name)

    def _of_services(self, processes: Mapping[int, _Process]) -> Iterator[Datum]:
        from ministack.services import ecs

        tasks: dict[str, list[int]] = {}
        for container in self._runtime.running():
            tasks.setdefault(container.labels["com.amazonaws.ecs.task-arn"], []).append(container.process.pid)
        for arn, containers in tasks.items():
            task = ecs._tasks.get(arn) or {}
            kind, _, service = task.get("group", "").partition(":")
            definition = ecs._task_defs.get(task.get("taskDefinitionArn", "").rsplit("/", 1)[-1])
            if kind != "service" or not definition:
                continue
            resident = sum(each.resident for pid in containers for each in _family(pid, processes))
            used = [self._percent(each, processes, cpus=int(definition["cpu"]) / 1024) for each in containers]
            for metric, value in (
                ("CPUUtilization", sum(filter(None, used))),
                ("MemoryUtilization", 100 * resident / (int(definition["memory"]) * 1024**2)),
            ):
                yield datum(
                    metric,
                    value,
                    unit="Percent",
                    ClusterName=task["clusterArn"].rpartition("/")[2],
                    ServiceName=service,
                )

    def _percent(self, pid: int | None, processes: Mapping[int, _Process], *, cpus: float) -> float | None:
        if pid is None or pid not in processes:
            return None
        used, now = sum(each.cpu for each in _family(pid, processes)), time.monotonic()
        before, then = self._cpu.get(pid, (used, now - 1))
        self._cpu[pid] = used, now
        return min(100.0, max(0.0, 100 * (used - before) / (now - then) / cpus))


def _of_buckets() -> Iterator[Datum]:
    from ministack.services import s3

    sizes: Counter[str] = Counter()
    for (bucket, _key), versions in list(s3._object_versions.items()):
        sizes[bucket] += sum(each["size"] for each in versions)
    for bucket, size in sizes.items():
        yield datum("BucketSizeBytes", size, unit="Bytes", BucketName=bucket, StorageType="StandardStorage")


def _of_certificates() -> Iterator[Datum]:
    from cryptography.x509 import load_pem_x509_certificate
    from ministack.services import acm

    for arn, certificate in list(acm._certificates.items()):
        if certificate["Type"] == "IMPORTED":
            # MiniStack does not read it.
            end = load_pem_x509_certificate(certificate["_pem_body"].encode()).not_valid_after_utc
        else:
            end = datetime.fromisoformat(certificate["NotAfter"])
        yield datum("DaysToExpiry", (end - datetime.now(UTC)).days, CertificateArn=arn)


def _activity(server: Postgres) -> list[float] | None:
    """What `_ACTIVITY` says; None if it does not answer."""
    try:
        with server.cursor() as cursor:
            cursor.execute(_ACTIVITY)
            return [float(each) for each in cursor.fetchone()]
    except Exception:
        return None


def _postmaster(server: Postgres) -> int | None:
    try:
        return int((server.directory / "data" / "postmaster.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _size(directory: Path) -> int:
    """The sum of the sizes that its files say they have."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - thousands of files
    return total


class _Process:
    """A line of /proc: whose child, CPU seconds with those of ended children, resident bytes."""

    def __init__(self, stat: str) -> None:
        fields = stat.rpartition(")")[2].split()
        self.parent = int(fields[1])
        self.cpu = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        self.resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def _processes() -> Mapping[int, _Process]:
    """By id; none where there is no /proc, as on macOS."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(file.parent.name)] = _Process(file.read_text())
    return found


def _family(pid: int, processes: Mapping[int, _Process]) -> Iterable[_Process]:
    """A process and all that it has started."""
    family = {pid}
    while more := {each for each, of in processes.items() if of.parent in family} - family:
        family |= more
    return [processes[each] for each in family if each in processes]


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(cast("Any", line.split(":")) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024
