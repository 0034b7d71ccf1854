from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from client_smoke.smoke import Smoke
from client_smoke.tracking import (
    Experiment,
    LoggedRun,
    experiment_has_an_s3_root,
    metric_history_is_in_order,
    search_finds_the_run,
)
from client_smoke.training import TREES, train
from client_smoke.verdict import StepFailed
from client_smoke.wire import Traffic

Offline = Callable[..., Smoke]


def logged_run() -> LoggedRun:
    return LoggedRun(
        id="r", artifact_uri="s3://b/1/r/artifacts", file_sha256="", file_bytes=1, traffic=Traffic()
    )


@pytest.mark.parametrize("location", ["mlflow-artifacts:/1", "/mlruns/1", "file:///mlruns/1", "s3://"])
def test_artifact_root_outside_s3_fails_the_step(location: str, offline: Offline) -> None:
    client = Mock()
    client.get_experiment.return_value.artifact_location = location
    with pytest.raises(StepFailed) as broken:
        experiment_has_an_s3_root(offline(mlflow=client))
    assert location in broken.value.seen
    assert "--no-serve-artifacts" in broken.value.next_action


def test_clean_up_is_armed_before_the_experiment_is_created(offline: Offline) -> None:
    client = Mock()
    client.create_experiment.side_effect = KeyboardInterrupt
    smoke = offline(mlflow=client)
    with pytest.raises(KeyboardInterrupt):
        experiment_has_an_s3_root(smoke)
    assert smoke.made_something


def history(*points: tuple[int, float]) -> list[SimpleNamespace]:
    return [SimpleNamespace(step=step, value=value) for step, value in points]


def test_metric_history_must_be_complete_and_in_order(offline: Offline) -> None:
    points = list(zip(TREES, train().accuracies, strict=True))
    client = Mock()
    smoke = offline(mlflow=client)
    smoke.remember(logged_run())
    client.get_metric_history.return_value = history(*points)
    assert "at steps 5, 10, 20, 40" in metric_history_is_in_order(smoke)
    for wrong in (points[::-1], points[:-1], [*points, points[-1]]):
        client.get_metric_history.return_value = history(*wrong)
        with pytest.raises(StepFailed):
            metric_history_is_in_order(smoke)


@pytest.mark.parametrize("found", [[], ["another"], ["r", "another"]])
def test_search_must_find_this_run_alone(found: list[str], offline: Offline) -> None:
    client = Mock()
    client.search_runs.return_value = [SimpleNamespace(info=SimpleNamespace(run_id=hit)) for hit in found]
    smoke = offline(mlflow=client)
    smoke.remember(logged_run())
    smoke.remember(Experiment(id="1", bucket="b", prefix="1"))
    with pytest.raises(StepFailed, match="not run r"):
        search_finds_the_run(smoke)


def test_search_must_show_the_latest_value(offline: Offline) -> None:
    client = Mock()
    client.search_runs.return_value = [
        SimpleNamespace(info=SimpleNamespace(run_id="r"), data=SimpleNamespace(metrics={"accuracy": -1.0}))
    ]
    smoke = offline(mlflow=client)
    smoke.remember(logged_run())
    smoke.remember(Experiment(id="1", bucket="b", prefix="1"))
    with pytest.raises(StepFailed, match=r"latest accuracy is -1\.0"):
        search_finds_the_run(smoke)
