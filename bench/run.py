"""A whole run: ours, stock MLflow and bare SQL in turns, on one machine, over one PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop
from mlflow_aws_server.fastpath.indexes import INDEXES

from bench import gate, pressure, resources, training
from bench.credentials import credentials_endpoint
from bench.database import SERVER_ROLE, PostgresCluster, Sizes, cluster
from bench.environment import describe
from bench.floor import FloorDatabase
from bench.identity import Identity, contributor
from bench.measure import Load, Stretch, as_record
from bench.records import BenchRecord, percentile
from bench.scenarios import SCENARIOS, Scenario
from bench.systems import PUBLIC_URL, System, SystemFailedError, ours, serving, stock

_PROJECT = Path(__file__).resolve().parent.parent
LOCAL = _PROJECT / ".local"
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Plan:
    """How much to measure. `rounds` maps each concurrency to how many turns every system gets there; a turn
    lasts `seconds` (more for slow calls, see `Scenario.seconds`). After `budget` seconds no new turns begin,
    so that the run ends in time on a slow machine too."""

    rounds: Mapping[int, int] = field(default_factory=lambda: {1: 2, 16: 3, 64: 1})
    seconds: float = 1.5
    warm_up: float = 0.5
    patience: float = 15.0
    scenarios: tuple[str, ...] = tuple(each.name for each in SCENARIOS)
    systems: tuple[str, ...] = ("ours", "stock", "floor")
    sizes: Sizes = field(default_factory=Sizes)
    starts: Mapping[str, int] = field(default_factory=lambda: {"ours": 3, "stock": 1})
    training_runs: tuple[int, ...] = (100, 2_000)
    training_limit: float = 60.0
    pressure: tuple[str, ...] = ("slow-clients", "large-bodies")
    slow_clients: int = 500
    pressure_seconds: float = 15.0
    budget: float = 12 * 60.0
    gate: bool = True
    fast_path: bool = True


QUICK = Plan(
    rounds={1: 1, 16: 1},
    seconds=0.5,
    warm_up=0.3,
    patience=5.0,
    sizes=Sizes(large=10_000),
    starts={"ours": 1, "stock": 1},
    training_runs=(50,),
    training_limit=20.0,
    slow_clients=100,
    pressure_seconds=4.0,
)


def chosen(plan: Plan) -> list[Scenario]:
    """The scenarios of a plan.

    Raises:
        ValueError: it names one that does not exist.
    """
    known = {each.name: each for each in SCENARIOS}
    unknown = [name for name in plan.scenarios if name not in known]
    if unknown:
        raise ValueError(f"unknown scenario {', '.join(unknown)}; choose from {', '.join(known)}")
    return [known[name] for name in plan.scenarios]


def run(plan: Plan, *, say: Callable[[str], None]) -> tuple[list[BenchRecord], dict[str, Any]]:
    """Carry out `plan` and return the records and their metadata.

    Raises:
        SystemFailedError: a server did not start.
    """
    began = perf_counter()
    records: list[BenchRecord] = []
    left_out: list[str] = []
    scenarios = chosen(plan)
    raise_file_limit()
    if plan.gate:
        # First, while nothing else runs.
        records.append(_gate(say=say))
    with machines(plan, say=say) as (base, servers):
        load = Load(plan.sizes.corpus(), floor_database(base), base.pid, plan.patience)
        idle = {each.name: _start(each, plan.starts.get(each.name, 1), say=say) for each in servers.values()}
        _warm_up(plan, servers, scenarios, load)
        for concurrency, rounds in plan.rounds.items():
            for scenario in scenarios:
                if perf_counter() - began > plan.budget:
                    left_out.append(f"{scenario.name} × {concurrency}")
                    continue
                made = _in_turns(plan, servers, scenario, concurrency, rounds, load)
                records += made
                say(_line(scenario, concurrency, made))
        for count in plan.training_runs:
            for system in servers.values():
                records.append(_training(plan, base, system, count, say=say))
        for system in servers.values():
            records += _pressure(plan, system, load, say=say)
        for name, system in servers.items():
            after = resources.memory(system.pid)[0] / _MEGABYTE
            records.insert(0, _with(idle[name], pss_mb_after_load=after))
        metadata = describe(plan=asdict(plan), seconds=perf_counter() - began, postgresql=base.settings())
    if left_out:
        say(f"left out, being over {plan.budget / 60:.0f} minutes: {', '.join(left_out)}")
    return records, metadata | {"left_out": left_out, "identity": "ours" in plan.systems}


@contextlib.contextmanager
def machines(
    plan: Plan, *, say: Callable[[str], None], shared_database: str | None = None
) -> Iterator[tuple[PostgresCluster, dict[str, System]]]:
    """PostgreSQL with a filled database per system, and the systems, not yet started; all is stopped and
    removed at the end. With `shared_database`, all systems use that one."""
    with alone(), cluster(LOCAL) as base, _surroundings(base) as (credentials, identity):
        began = perf_counter()
        base.prepare((shared_database,) if shared_database else plan.systems, plan.sizes)
        if not shared_database and "ours" in plan.systems:
            # As `migrate` does after MLflow's own migrations.
            base.execute("ours", [*indexes(), "ANALYZE runs"])
        runs = plan.sizes.written + plan.sizes.small + plan.sizes.large
        say(f"PostgreSQL with {runs:,} runs: {perf_counter() - began:.0f} s")
        logs = LOCAL / "bench"
        every = {
            "ours": ours(
                base,
                logs,
                database=shared_database or "ours",
                credentials_url=credentials,
                identity=identity,
                fast_path=plan.fast_path,
            ),
            "stock": stock(base, logs, database=shared_database or "stock"),
        }
        servers = {name: system for name, system in every.items() if name in plan.systems}
        with serving(*servers.values()):
            yield base, servers


@contextlib.contextmanager
def _surroundings(base: PostgresCluster) -> Iterator[tuple[str, Identity]]:
    with credentials_endpoint() as credentials, contributor(base.authority, audience=PUBLIC_URL) as identity:
        yield credentials, identity


def indexes() -> list[str]:
    """What `migrate` builds beside MLflow's own indexes."""
    return [f"CREATE INDEX {name} ON {columns}" for name, columns in INDEXES.items()]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the machine for one benchmark.

    Raises:
        SystemFailedError: another benchmark runs.
    """
    LOCAL.mkdir(mode=0o700, exist_ok=True)
    lock = LOCAL / "bench.lock"
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemFailedError(
                f"another benchmark holds {lock}; two at once would measure each other: wait for its end"
            ) from None
        yield


def floor_database(base: PostgresCluster) -> FloorDatabase:
    """The database that bare SQL writes to, with the rights of our server's role and the same TLS."""
    return FloorDatabase("127.0.0.1", base.postgres.port, "floor", SERVER_ROLE, base.ca_file)


def raise_file_limit() -> None:
    """Allow thousands of connections, here and in the servers that this process starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16_384 if hard == resource.RLIM_INFINITY else min(16_384, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _gate(*, say: Callable[[str], None]) -> BenchRecord:
    read, write, unseen = asyncio.run(gate.quietly(rounds=2_000))
    say(
        f"the gate adds {read.added:.0f} µs to a read, {write.added:.0f} µs to a write, "
        f"{unseen.added:.0f} µs to the first call of a token"
    )
    return BenchRecord(
        scenario="gate",
        concurrency=1,
        system="ours",
        rps=None,
        p50_ms=write.added / 1000,
        p99_ms=None,
        errors=0,
        more={"read_us": read.added, "write_us": write.added, "new_token_us": unseen.added},
    )


def _start(system: System, times: int, *, say: Callable[[str], None]) -> BenchRecord:
    seconds = []
    for turn in range(times):
        seconds.append(system.start())
        if turn < times - 1:
            system.stop()
    cores = system.idle()
    idle = resources.usage(system.pid)
    record = BenchRecord(
        scenario="start",
        concurrency=1,
        system=system.name,
        rps=None,
        p50_ms=(percentile(seconds, 0.5) or 0) * 1000,
        p99_ms=max(seconds) * 1000,
        errors=0,
        more={
            "pss_mb": idle.pss / _MEGABYTE,
            "rss_mb": idle.rss / _MEGABYTE,
            "processes": idle.processes,
            "idle_cores": cores,
        },
    )
    say(
        f"{system.name}: first answer after {min(seconds):.1f} s, idle {idle.pss / _MEGABYTE:.0f} MB"
        f" (PSS) in {idle.processes} processes, {cores:.2f} cores"
    )
    return record


def _warm_up(plan: Plan, servers: Mapping[str, System], scenarios: Sequence[Scenario], load: Load) -> None:
    for scenario in scenarios:
        for system in servers.values():
            load.on_server(system, scenario, concurrency=8, seconds=plan.warm_up)
            system.settle()


def _in_turns(
    plan: Plan,
    servers: Mapping[str, System],
    scenario: Scenario,
    concurrency: int,
    rounds: int,
    load: Load,
) -> list[BenchRecord]:
    stretches: dict[str, list[Stretch]] = defaultdict(list)
    restarts: dict[str, int] = defaultdict(int)
    taking_part = [name for name in plan.systems if name in servers or (name == "floor" and scenario.floor)]
    seconds = plan.seconds * scenario.seconds
    for turn in range(rounds):
        # The first of a round finds the machine as the last one left it, so they take turns at that too.
        for name in taking_part[turn % len(taking_part) :] + taking_part[: turn % len(taking_part)]:
            if name == "floor":
                stretch = load.on_floor(scenario, concurrency=concurrency, seconds=seconds)
            else:
                stretch = load.on_server(servers[name], scenario, concurrency=concurrency, seconds=seconds)
                restarts[name] += not servers[name].settle()
            stretches[name].append(stretch)
    return [
        as_record(
            scenario,
            concurrency=concurrency,
            system=name,
            stretches=stretches[name],
            more={"restarts": restarts[name]} if restarts[name] else {},
        )
        for name in taking_part
    ]


def _training(
    plan: Plan, base: PostgresCluster, system: System, runs: int, *, say: Callable[[str], None]
) -> BenchRecord:
    before = resources.cpu_seconds(system.pid)
    cpu = time.process_time()
    seen = uvloop.run(
        training.train(
            system.wire, experiment=plan.sizes.corpus().experiment, runs=runs, limit=plan.training_limit
        )
    )
    generator = time.process_time() - cpu
    server = resources.cpu_seconds(system.pid) - before
    rows = base.query(
        system.database,
        "SELECT run_uuid, count(*) FROM metrics WHERE run_uuid = ANY(%s) GROUP BY run_uuid",
        list(seen.acknowledged),
    )
    lost = seen.lost_points(dict(rows))
    record = training.as_record(seen, system=system.name, lost=lost)
    record = _with(
        record,
        server_cores=server / seen.seconds,
        generator_cores=generator / seen.seconds,
        pss_mb=resources.memory(system.pid)[0] / _MEGABYTE,
    )
    system.settle()
    say(
        f"{runs:,} training runs at once, {system.name}: {seen.finished:,} finished in {seen.seconds:.0f} s,"
        f" {seen.failed_calls:,} failed calls, {lost:,} lost points,"
        f" log-batch p99 {record.p99_ms or 0:,.0f} ms"
    )
    return record


def _pressure(plan: Plan, system: System, load: Load, *, say: Callable[[str], None]) -> list[BenchRecord]:
    attacks = {
        "slow-clients": (
            plan.slow_clients,
            pressure.slow_clients(system.wire, load.corpus, clients=plan.slow_clients),
        ),
        "large-bodies": (16, pressure.large_bodies(system.wire, load.corpus, clients=16)),
    }
    records = []
    for name in plan.pressure:
        clients, attack = attacks[name]
        seen = uvloop.run(
            pressure.under(
                system.wire,
                load.corpus,
                attack,
                memory=lambda: resources.memory(system.pid)[0],
                seconds=plan.pressure_seconds,
            )
        )
        restarted = not system.settle()
        records.append(pressure.as_record(name, clients, system.name, seen, restarted=restarted))
        say(
            f"{name} × {clients}, {system.name}: others {_rate(records[-1].rps)} with p99 "
            f"{records[-1].p99_ms or 0:,.0f} ms, {seen.probe.errors} errors; memory "
            f"{seen.memory_before / _MEGABYTE:.0f} → {seen.memory_peak / _MEGABYTE:.0f} MB; {dict(seen.seen)}"
        )
    return records


def _with(record: BenchRecord, **more: Any) -> BenchRecord:
    return BenchRecord(**{**vars(record), "more": {**record.more, **more}})


def _rate(rps: float | None) -> str:
    return "–" if rps is None else f"{rps:,.0f}/s" if rps >= 10 else f"{rps:.1f}/s"


def _line(scenario: Scenario, concurrency: int, made: Sequence[BenchRecord]) -> str:
    by_name = {each.system: each for each in made}
    cells = [
        f"{name} {_rate(each.rps):>9} p50 {each.p50_ms or 0:8.1f} ms"
        + (f" {each.errors} errors" if each.errors else "")
        for name, each in by_name.items()
    ]
    ours_, stock_ = by_name.get("ours"), by_name.get("stock")
    if ours_ and stock_ and ours_.rps and stock_.rps:
        cells.append(f"{ours_.rps / stock_.rps:.1f}×")
    return f"{concurrency:>3} × {scenario.name:<24} " + " | ".join(cells)


def to_stderr(line: str) -> None:
    """Report progress on standard error, since standard output is for results."""
    print(line, file=sys.stderr, flush=True)
