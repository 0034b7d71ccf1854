"""Many writers at once, to the same run and the same keys: nothing is lost, and the rules still hold."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from mlflow_aws_server.fastpath import database

from tests.server.fastpath.alone import RUN, Place, serving
from tests.server.fastpath.harness import Answer, call


async def post(app: Any, path: str, **fields: Any) -> Answer:
    body = json.dumps({"run_id": RUN, **fields}).encode()
    return await call(app, "POST", f"/api/2.0/mlflow/runs/{path}", body=body)


async def test_the_latest_value_is_the_greatest_whoever_comes_last(place: Place) -> None:
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
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_FIRST_BACKOFF_SECONDS", 0.01)
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
