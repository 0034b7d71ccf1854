"""Many writers at once, to the same run and the same keys: nothing is lost, and the rules still hold."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from mlflow_aws_server.fastpath import writing

from tests.server.fastpath.alone import RUN, Place, serving
from tests.server.fastpath.harness import Answer, call


async def post(app: Any, path: str, **fields: Any) -> Answer:
    body = json.dumps({"run_id": RUN, **fields}).encode()
    return await call(app, "POST", f"/api/2.0/mlflow/runs/{path}", body=body)


@pytest.fixture(autouse=True)
def contended(monkeypatch: pytest.MonkeyPatch) -> writing.ContendedRuns:
    """No run is known to be contended."""
    runs = writing.ContendedRuns()
    monkeypatch.setattr(writing, "contended", runs)
    return runs


async def test_the_latest_value_is_the_greatest_in_any_order_of_writers(place: Place) -> None:
    place.add_run()
    order = random.Random(5)
    points = [(step, time, value) for step in range(6) for time in range(4) for value in (0.5, "NaN", -1.0)]
    order.shuffle(points)

    async def write(part: list[tuple[int, int, Any]]) -> None:
        for step, time, value in part:
            metrics = [{"key": k, "value": value, "timestamp": time, "step": step} for k in ("a", "b")]
            assert (await post(app, "log-batch", metrics=metrics)).status == 200

    async with serving(place) as (app, behind):
        # Each point is written by two writers.
        await asyncio.gather(*(write(points[i::8] + points[(i + 1) % 8 :: 8]) for i in range(8)))
        assert behind.paths == []
    assert place.sql("SELECT count(*) FROM metrics") == [(2 * len(points),)]
    latest = place.sql("SELECT key, step, timestamp, value, is_nan FROM latest_metrics ORDER BY key")
    # NaN is stored as 0 and compares so; 0.5 is greater.
    assert latest == [("a", 5, 3, 0.5, False), ("b", 5, 3, 0.5, False)]


async def test_writers_that_log_the_same_keys_in_different_orders_all_succeed(
    place: Place,
) -> None:
    place.rds.administer(f"ALTER DATABASE {place.name} SET deadlock_timeout = '5ms'")
    place.add_run()
    keys = [f"k{i}" for i in range(60)]

    async def write(number: int) -> None:
        order = random.Random(number)
        for step in range(12):
            order.shuffle(keys)
            metrics = [{"key": k, "value": number, "timestamp": step, "step": step} for k in keys]
            tags = [{"key": k, "value": str(number)} for k in keys]
            answer = await post(app, "log-batch", metrics=metrics, tags=tags)
            assert answer.status == 200, answer.body

    async with serving(place) as (app, behind):
        await asyncio.gather(*(write(n) for n in range(6)))
        assert behind.paths == []
    assert place.sql("SELECT count(*) FROM metrics") == [(60 * 12 * 6,)]
    assert place.sql("SELECT count(*), min(step), min(value), max(value) FROM latest_metrics") == [
        (60, 11, 5, 5)
    ]


async def test_after_a_deadlock_the_writers_of_a_run_take_turns(
    place: Place, contended: writing.ContendedRuns
) -> None:
    place.rds.administer(f"ALTER DATABASE {place.name} SET deadlock_timeout = '5ms'")
    place.add_run()
    metrics = [{"key": key, "value": 1, "timestamp": 1, "step": 1} for key in ("a", "b", "c")]
    async with serving(place) as (app, behind):
        first, second = await place.connect(), await place.connect()
        in_first, in_second = first.transaction(), second.transaction()
        await in_first.start()
        await in_second.start()
        # PostgreSQL looks for a deadlock once, when somebody has waited for that long: the writer does.
        await second.execute("SET LOCAL deadlock_timeout = '1h'")
        await first.execute(LATEST, "b", RUN)
        await second.execute(LATEST, "c", RUN)
        writer = asyncio.create_task(post(app, "log-batch", metrics=metrics))
        await until(first, "SELECT 1 FROM pg_locks WHERE NOT granted")
        assert await first.fetch(LOCKS) == [("ShareLock",)]
        second_wants = asyncio.create_task(second.execute(LATEST, "a", RUN))
        await until(first, "SELECT 1 FROM pg_locks WHERE NOT granted OFFSET 1")
        await in_first.rollback()
        await second_wants
        await until(first, f"{LOCKS} AND mode = 'ExclusiveLock'")
        await in_second.commit()
        assert (await writer).status == 200
        await first.close()
        await second.close()
        assert behind.paths == []
    assert RUN in contended
    stored = place.sql("SELECT key, value FROM latest_metrics ORDER BY key")
    assert stored == [("a", 1.0), ("b", 1.0), ("c", 1.0)]


LATEST = """
    INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
    VALUES ($1, 0, 0, 0, false, $2)
"""
LOCKS = """
    SELECT mode FROM pg_locks
    WHERE locktype = 'advisory'
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def until(connection: Any, question: str) -> None:
    """Ask until there is an answer."""
    async with asyncio.timeout(30):
        while not await connection.fetch(question):
            await asyncio.sleep(0.005)


def test_only_the_last_contended_runs_are_remembered() -> None:
    runs = writing.ContendedRuns(most=2)
    for run in ("a", "b", "a", "c"):
        runs.add(run)
    assert [run in runs for run in ("a", "b", "c")] == [True, False, True]


async def test_of_writers_that_disagree_on_a_param_exactly_one_wins(place: Place) -> None:
    place.add_run()
    async with serving(place) as (app, _):
        for number in range(10):
            param = f"p{number}"
            answers = await asyncio.gather(
                *(post(app, "log-parameter", key=param, value=str(writer)) for writer in range(6))
            )
            # The others are handed to stock, which says what is wrong.
            accepted = [str(writer) for writer, answer in enumerate(answers) if answer.body == b"{}"]
            assert [a.body for a in answers].count(b"stock") == 5
            assert place.sql(f"SELECT value FROM params WHERE key = '{param}'") == [(accepted[0],)]


async def test_a_batch_that_disagrees_on_one_param_stores_none_of_its_params(place: Place) -> None:
    place.add_run()
    async with serving(place) as (app, _):
        for number in range(10):
            batches = [
                [
                    {"key": f"shared{number}", "value": str(writer)},
                    {"key": f"own{number}-{writer}", "value": "1"},
                ]
                for writer in range(6)
            ]
            answers = await asyncio.gather(*(post(app, "log-batch", params=params) for params in batches))
            winners = [writer for writer, answer in enumerate(answers) if answer.body == b"{}"]
            assert len(winners) == 1
            stored = place.sql(f"SELECT key FROM params WHERE key LIKE 'own{number}-%'")
            assert stored == [(f"own{number}-{winners[0]}",)]


async def test_writers_that_agree_on_params_all_succeed(place: Place) -> None:
    place.add_run()
    params = [{"key": f"p{i}", "value": "1"} for i in range(20)]
    async with serving(place) as (app, _):
        answers = await asyncio.gather(*(post(app, "log-batch", params=params) for _ in range(12)))
        assert {a.body for a in answers} == {b"{}"}
    assert place.sql("SELECT count(*) FROM params") == [(20,)]
