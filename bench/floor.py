"""The floor: the same rows written with bare SQL, without a server in between.

Each call is one prepared, set-based statement over TLS with its arguments ready in memory: no HTTP, no JSON,
no validation, and only the foreign key checks that the run exists.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import asyncpg

from bench.corpus import EPOCH_MS, Corpus
from bench.load import LoadResult
from bench.scenarios import distinct_bodies, points, spread

_METRICS = """
    INSERT INTO metrics (key, value, timestamp, step, run_uuid, is_nan)
    SELECT k, v, t, s, $1, false
    FROM unnest($2::text[], $3::float8[], $4::int8[], $5::int8[]) AS new (k, v, t, s)
    ON CONFLICT DO NOTHING
"""
_LATEST = """
    INSERT INTO latest_metrics AS old (key, value, timestamp, step, run_uuid, is_nan)
    SELECT k, v, t, s, $1, false
    FROM unnest({arrays}) AS new (k, v, t, s)
    ON CONFLICT (key, run_uuid) DO UPDATE
    SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = false
    WHERE (old.step, old.timestamp, old.value) < (excluded.step, excluded.timestamp, excluded.value)
"""
_SAME_ROWS = f"WITH history AS ({_METRICS}) " + _LATEST.format(
    arrays="$2::text[], $3::float8[], $4::int8[], $5::int8[]"
)
_OTHER_ROWS = f"WITH history AS ({_METRICS}) " + _LATEST.format(
    arrays="$6::text[], $7::float8[], $8::int8[], $9::int8[]"
)
_ONE_METRIC = """
    WITH history AS (
        INSERT INTO metrics (key, value, timestamp, step, run_uuid, is_nan)
        VALUES ($2, $3, $4, $5, $1, false) ON CONFLICT DO NOTHING
    )
    INSERT INTO latest_metrics AS old (key, value, timestamp, step, run_uuid, is_nan)
    VALUES ($2, $3, $4, $5, $1, false)
    ON CONFLICT (key, run_uuid) DO UPDATE
    SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = false
    WHERE (old.step, old.timestamp, old.value) < (excluded.step, excluded.timestamp, excluded.value)
"""
_PARAMETER = "INSERT INTO params (run_uuid, key, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
_TAG = """
    INSERT INTO tags (run_uuid, key, value) VALUES ($1, $2, $3)
    ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value
"""
_CREATE = """
    WITH run AS (
        INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,
                          start_time, source_version, lifecycle_stage, artifact_uri, experiment_id)
        VALUES (md5($1), $1, 'UNKNOWN', '', '', 'bench', 'RUNNING', $2, '', 'active',
                's3://bench-artifacts/1/' || md5($1) || '/artifacts', $3)
    )
    INSERT INTO tags (run_uuid, key, value)
    VALUES (md5($1), 'mlflow.user', 'bench'), (md5($1), 'mlflow.source.name', 'train.py'),
           (md5($1), 'mlflow.source.type', 'LOCAL'), (md5($1), 'mlflow.runName', $1)
"""
_UPDATE = "UPDATE runs SET status = 'FINISHED', end_time = $2 WHERE run_uuid = $1"

Arguments = Callable[[int], Sequence[Any]]


@dataclass(frozen=True)
class BareWrite:
    """A statement and its arguments for the n-th call."""

    statement: str
    arguments: Arguments


def bare_write(scenario: str, corpus: Corpus) -> BareWrite:
    """The floor of a scenario.

    Raises:
        KeyError: there is none (`Scenario.floor` is false).
    """
    runs = corpus.runs
    simple: dict[str, tuple[str, Callable[[str, int, int], Sequence[Any]]]] = {
        "log-metric": (_ONE_METRIC, lambda run, turn, _: (run, "single", turn + 0.5, EPOCH_MS + turn, turn)),
        "log-parameter": (_PARAMETER, lambda run, turn, _: (run, f"parameter_{turn}", f"value {turn}")),
        "set-tag": (_TAG, lambda run, turn, _: (run, "note", f"value {turn}")),
        "create-run": (
            _CREATE,
            lambda _run, _turn, n: (f"new-{n}", EPOCH_MS + n, int(corpus.experiment)),
        ),
        "update-run": (_UPDATE, lambda run, _turn, n: (run, EPOCH_MS + n)),
    }
    if scenario in simple:
        statement, make = simple[scenario]

        def arguments(number: int) -> Sequence[Any]:
            run, turn = spread(number, len(runs))
            return make(runs[run], turn, number)

        return BareWrite(statement, arguments)
    count, keys = {
        "log-batch-1": (1, 1),
        "log-batch-100": (100, 100),
        "log-batch-1000": (1000, 1000),
        "log-batch-1000-repeated": (1000, 10),
    }[scenario]
    return _batches(runs, count=count, keys=keys)


def _batches(runs: Sequence[str], *, count: int, keys: int) -> BareWrite:
    bodies: list[tuple[list[Any], ...]] = []
    for body in range(distinct_bodies(count)):
        rows = points(body, count=count, keys=keys)
        # Points are in the order of their steps, so the last `keys` of them are the latest.
        parts = [rows] if count == keys else [rows, rows[-keys:]]
        bodies.append(
            tuple(
                column
                for part in parts
                for column in (
                    [row.key for row in part],
                    [row.value for row in part],
                    [row.timestamp for row in part],
                    [row.step for row in part],
                )
            )
        )

    def arguments(number: int) -> Sequence[Any]:
        run, body = spread(number, len(runs))
        return (runs[run], *bodies[body % len(bodies)])

    return BareWrite(_SAME_ROWS if count == keys else _OTHER_ROWS, arguments)


@dataclass(frozen=True)
class FloorDatabase:
    """The database that bare SQL writes to."""

    host: str
    port: int
    name: str
    user: str
    ca_file: str


async def bare_loop(
    database: FloorDatabase, write: BareWrite, *, first: int, connections: int, seconds: float
) -> tuple[LoadResult, int]:
    """Like `load.closed_loop`, with a statement in place of a request."""
    outcome = LoadResult()
    numbers = iter(range(first, first + 10**9))
    tls = ssl.create_default_context(cafile=database.ca_file)
    last = first

    async def open_one() -> asyncpg.Connection[Any]:
        return await asyncpg.connect(
            host=database.host, port=database.port, database=database.name, user=database.user, ssl=tls
        )

    opened = await asyncio.gather(*(open_one() for _ in range(connections)))
    try:
        prepared = [await each.prepare(write.statement) for each in opened]
        for statement in prepared:
            await statement.fetch(*write.arguments(next(numbers)))
        cpu, began = time.process_time(), perf_counter()
        ends = began + seconds

        async def worker(statement: Any) -> None:
            nonlocal last
            while (sent := perf_counter()) < ends:
                last = next(numbers)
                try:
                    await statement.fetch(*write.arguments(last))
                except asyncpg.PostgresError as error:
                    outcome.statuses[type(error).__name__] += 1
                else:
                    outcome.statuses["200"] += 1
                    outcome.latencies.append(perf_counter() - sent)

        await asyncio.gather(*(worker(each) for each in prepared))
        outcome.seconds = perf_counter() - began
        outcome.generator_cpu_seconds = time.process_time() - cpu
    finally:
        for each in opened:
            each.terminate()
    return outcome, last + 1
