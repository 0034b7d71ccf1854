"""What a reader takes off the writer: PostgreSQL's CPU time for each call of people and of programs."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

from bench import resources
from bench.credentials import credentials_endpoint
from bench.database import PostgresCluster, Sizes, cluster
from bench.environment import describe
from bench.identity import contributor, person
from bench.measure import Load, as_record
from bench.records import BenchRecord
from bench.run import LOCAL, Plan, alone, floor_database
from bench.scenarios import Scenario, get_history, search_runs
from bench.systems import PUBLIC_URL, System, ours, serving
from local.parts.postgres import Postgres
from local.parts.standby import REPLICATION_RULE, standby

_READER = "127.0.0.2"
_CALLERS = 4
_SCENARIOS = (
    Scenario("search-latest", "search-runs, latest 100 of 5,000", search_runs(large=False)),
    Scenario("search-best", "search-runs, best 100, filtered, of 5,000", search_runs(large=False, best=True)),
    Scenario("get-history", "metrics/get-history, 100 points", get_history),
)


def measure_readers(plan: Plan, *, say: Callable[[str], None]) -> tuple[list[BenchRecord], dict[str, Any]]:
    """Load one server that has a reader and one that has none, as people and as programs."""
    began = perf_counter()
    plan = replace(plan, sizes=Sizes(large=0))
    records: list[BenchRecord] = []
    with alone(), cluster(LOCAL) as base:
        base.prepare(("ours",), plan.sizes)
        with _following(base) as reader, _callers(base) as callers:
            assert reader.pid is not None
            for scenario in _SCENARIOS:
                for name, system in callers.items():
                    load = Load(plan.sizes.corpus(), floor_database(base), base.pid, plan.patience)
                    on_reader = resources.cpu_seconds(reader.pid)
                    stretch = load.on_server(system, scenario, concurrency=_CALLERS, seconds=plan.seconds)
                    calls = max(1, stretch.outcome.succeeded)
                    more = {
                        "writer_ms": 1000 * stretch.database_cores * stretch.outcome.seconds / calls,
                        "reader_ms": 1000 * (resources.cpu_seconds(reader.pid) - on_reader) / calls,
                    }
                    record = as_record(
                        scenario, concurrency=_CALLERS, system=name, stretches=[stretch], more=more
                    )
                    records.append(record)
                    say(_line(record, more))
        settings = base.settings()
    return records, describe(plan=asdict(plan), seconds=perf_counter() - began, postgresql=settings)


@contextlib.contextmanager
def _following(base: PostgresCluster) -> Iterator[Postgres]:
    writer = base.postgres
    directory = writer.directory.with_name("bench-reader")
    shutil.rmtree(directory, ignore_errors=True)
    writer.stop()
    writer.socket_hba = (REPLICATION_RULE,)
    reader = standby(writer, directory, host=_READER, tls=base.authority.issue(_READER, name="reader"))
    reader.hba = tuple(rule.replace("127.0.0.1/32", "127.0.0.0/8") for rule in writer.hba)
    try:
        writer.start()
        reader.start()
        yield reader
    finally:
        reader.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _callers(base: PostgresCluster) -> Iterator[Mapping[str, System]]:
    """Who calls, each as a server with the caller's headers."""
    with (
        credentials_endpoint() as credentials,
        contributor(base.authority, audience=PUBLIC_URL) as program,
        person(base.authority) as user,
    ):
        both = replace(program, environment={**program.environment, **user.environment})
        logs = LOCAL / "bench"
        lone = ours(base, logs / "alone", credentials_url=credentials, identity=both)
        read = ours(base, logs / "read", credentials_url=credentials, identity=both, reader=_READER)
        with serving(lone, read):
            for system in (lone, read):
                system.start()
            # Until the reader was checked, the writer answers.
            time.sleep(2)
            as_person = {"Host": lone.headers["Host"], **user.headers}
            yield {
                "people, no reader": replace(lone, headers=as_person),
                "people, a reader": replace(read, headers=as_person),
                "programs, a reader": read,
            }


def _line(record: BenchRecord, more: Mapping[str, float]) -> str:
    return (
        f"{record.scenario:<14} {record.system:<20} {record.rps or 0:7.0f}/s, CPU per call: "
        f"writer {more['writer_ms']:.2f} ms, reader {more['reader_ms']:.2f} ms, {record.errors} errors"
    )
