"""How the cost of a call grows with the database: from 1,000 runs of 200 points to as many as fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

from bench import corpus
from bench.corpus import EPOCH_MS, HISTORY_KEY, LARGE_EXPERIMENT, METRICS_PER_RUN, Corpus
from bench.database import Sizes
from bench.environment import describe
from bench.measure import Load, as_record
from bench.records import BenchRecord
from bench.run import Plan, floor_database, machines, raise_file_limit
from bench.scenarios import (
    Scenario,
    create_run,
    get_history,
    get_run,
    log_batch,
    log_metric,
    search_runs,
)

KEYS_PER_RUN = 10
STEPS_PER_KEY = 20
POINTS_PER_RUN = KEYS_PER_RUN * STEPS_PER_KEY + METRICS_PER_RUN

# Runs per statement: large, yet small enough to show progress.
_STEP = 20_000

# More calls than a single caller makes in one turn; a multiple of the runs it writes to.
_CALLS = 16_000

_SCENARIOS: Sequence[Scenario] = (
    Scenario("log-metric", "log-metric", log_metric),
    Scenario("log-batch-100", "log-batch, 100 metrics", log_batch(count=100, keys=100)),
    Scenario("create-run", "create-run", create_run),
    Scenario("get-run", "get-run", get_run),
    Scenario("get-history", "metrics/get-history", get_history),
    Scenario("search-latest", "search-runs, latest 100", search_runs(large=True)),
    Scenario("search-best", "search-runs, best 100, filtered", search_runs(large=True, best=True)),
)


def stages(most: int) -> list[int]:
    """1,000 runs, then ten times as many, up to `most`.

    Raises:
        ValueError: `most` is below 1,000.
    """
    if most < 1_000:
        raise ValueError(f"growth begins at 1,000 runs; --grow {most} is below")
    found = [1_000]
    while found[-1] * 10 < most:
        found.append(found[-1] * 10)
    return found if found[-1] == most else [*found, most]


def grow(most: int, plan: Plan, *, say: Callable[[str], None]) -> tuple[list[BenchRecord], dict[str, Any]]:
    """Measure the main calls of a single caller at every stage up to `most` runs."""
    began = perf_counter()
    systems = tuple(name for name in plan.systems if name != "floor")
    # Both servers use one database, which grows.
    plan = replace(plan, systems=systems, sizes=Sizes(small=0, large=0, with_history=0))
    records: list[BenchRecord] = []
    raise_file_limit()
    with machines(plan, say=say, shared_database="ours") as (base, servers):
        for system in servers.values():
            system.start()
            system.idle()
        runs = 0
        for stage, target in enumerate(stages(most)):
            filling = perf_counter()
            for first in range(runs + 1, target + 1, _STEP):
                base.execute("ours", fill(first, min(first + _STEP - 1, target)))
            runs = target
            base.execute("ours", ["VACUUM (ANALYZE)", "CHECKPOINT"])
            size = base.query("ours", "SELECT pg_database_size('ours')")[0][0]
            say(
                f"{runs:,} runs, {runs * POINTS_PER_RUN:,} points, {size / 1e9:.1f} GB "
                f"({perf_counter() - filling:.0f} s to fill)"
            )
            load = Load(_corpus(plan, runs), floor_database(base), base.pid, plan.patience)
            for scenario in _SCENARIOS:
                for turn, (name, system) in enumerate(servers.items()):
                    # The systems share a database, so none may repeat another's rows.
                    load.begin_at(name, scenario.name, (2 * stage + turn) * _CALLS)
                    stretch = load.on_server(system, scenario, concurrency=1, seconds=plan.seconds)
                    more = {"runs": runs, "metric_rows": runs * POINTS_PER_RUN, "database_bytes": size}
                    records.append(
                        as_record(scenario, concurrency=1, system=name, stretches=[stretch], more=more)
                    )
                    system.settle()
                say("  " + _line(scenario, records[-len(servers) :]))
        metadata = describe(plan=asdict(plan), seconds=perf_counter() - began, postgresql=base.settings())
    return records, metadata


def fill(first: int, last: int) -> list[str]:
    """SQL for the runs numbered `first`..`last` with their points, latest points, parameters and tags."""
    history = (
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)"
        f" SELECT CASE k WHEN 1 THEN '{HISTORY_KEY}' ELSE 'curve_' || k END, 1.0 / (s + k),"
        f" {EPOCH_MS} + i * 100000 + s * 1000,"
        f" md5('{LARGE_EXPERIMENT}/' || i), s, false FROM generate_series({first}::bigint, {last}) i,"
        f" generate_series(1, {KEYS_PER_RUN}) k, generate_series(1, {STEPS_PER_KEY}) s"
    )
    return [
        # The rows fit by construction; checking each foreign key would take most of the time.
        "SET session_replication_role = replica",
        *corpus.run_statements(LARGE_EXPERIMENT, first=first, last=last),
        *corpus.attribute_statements(LARGE_EXPERIMENT, first=first, last=last),
        history,
    ]


def _corpus(plan: Plan, runs: int) -> Corpus:
    # Read from all of the runs, not only the first.
    sample = [corpus.run_id(LARGE_EXPERIMENT, number) for number in range(1, runs + 1, max(1, runs // 2_000))]
    return replace(plan.sizes.corpus(), readable=sample, with_history=sample)


def _line(scenario: Scenario, made: Sequence[BenchRecord]) -> str:
    cells = " | ".join(f"{each.system} {each.p50_ms or 0:.1f} ms" for each in made)
    return f"{scenario.name:<14} {cells}"
