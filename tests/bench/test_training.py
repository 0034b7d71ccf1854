from __future__ import annotations

import pytest

from bench import training
from bench.training import (
    CALLS_PER_RUN,
    POINTS_PER_RUN,
    as_record,
    pause_before_retry,
    points_over_api,
    train,
)
from tests.bench.conftest import TinyServer


async def test_every_run_logs_all_its_points_and_finishes(tiny: TinyServer) -> None:
    seen = await train(tiny.wire, experiment="9", runs=5, limit=20)
    assert (seen.finished, seen.failed_calls, seen.calls) == (5, 0, 5 * CALLS_PER_RUN)
    assert sum(seen.acknowledged.values()) == 5 * POINTS_PER_RUN
    assert {body["experiment_id"] for body in tiny.calls("runs/create")} == {"9"}


async def test_points_of_a_run_are_all_different(tiny: TinyServer) -> None:
    await train(tiny.wire, experiment="9", runs=1, limit=20)
    logged = [
        (key, each["timestamp"], each["step"]) for (_, key), found in tiny.points.items() for each in found
    ]
    assert len(set(logged)) == len(logged) == POINTS_PER_RUN


async def test_overload_is_retried_as_the_client_does_and_fails_no_call(tiny: TinyServer) -> None:
    tiny.failures = [(503, {}), (429, {"retry-after": "0"}), (500, {"retry-after": "0"})]
    seen = await train(tiny.wire, experiment="9", runs=1, limit=20)
    assert (seen.retries, seen.failed_calls, seen.finished) == (3, 0, 1)


async def test_a_400_is_lost_at_once_because_clients_do_not_retry_it(tiny: TinyServer) -> None:
    tiny.failures = [(200, {}), (200, {}), (400, {})]
    seen = await train(tiny.wire, experiment="9", runs=1, limit=20)
    assert (seen.retries, seen.failed_calls, seen.failures) == (0, 1, {"400": 1})
    assert sum(seen.acknowledged.values()) == POINTS_PER_RUN - training.METRICS_PER_BATCH


async def test_points_that_were_acknowledged_and_are_not_there_are_lost(tiny: TinyServer) -> None:
    tiny.forgets = True
    seen = await train(tiny.wire, experiment="9", runs=2, limit=20)
    lost = seen.lost_points(await points_over_api(tiny.wire, seen))
    assert lost == 2 * POINTS_PER_RUN
    assert as_record(seen, system="ours", lost=lost).more["points_lost"] == lost


async def test_no_point_is_lost_when_all_are_there(tiny: TinyServer) -> None:
    seen = await train(tiny.wire, experiment="9", runs=2, limit=20)
    assert seen.lost_points(await points_over_api(tiny.wire, seen)) == 0


async def test_runs_that_outlast_the_limit_have_failed(tiny: TinyServer) -> None:
    tiny.failures = [(503, {"retry-after": "60"})] * 3
    seen = await train(tiny.wire, experiment="9", runs=3, limit=0.5)
    assert (seen.finished, seen.failed_calls) == (0, 3)


@pytest.mark.parametrize(
    ("attempt", "retry_after", "seconds"),
    [(1, None, 0.0), (2, None, 4.5), (3, None, 8.5), (7, None, 120.5), (1, "7", 7.0), (2, "soon", 4.5)],
)
def test_pauses_are_those_of_the_client(attempt: int, retry_after: str | None, seconds: float) -> None:
    assert pause_before_retry(attempt, retry_after, jitter=0.5) == seconds
