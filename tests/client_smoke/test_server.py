from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from client_smoke.server import _fast_path, check_compatible, server_is_healthy
from client_smoke.smoke import Smoke
from client_smoke.verdict import StepFailed

Offline = Callable[..., Smoke]


def test_real_server_is_healthy(smoke: Smoke) -> None:
    installed = version("mlflow")
    answer = server_is_healthy(smoke)
    assert (
        answer
        == f"MLflow {installed} answers this client's {installed}, database included, the fast path too"
    )
    assert smoke.versions["server"] == installed


@pytest.mark.parametrize("server", ["3.0.0", "3.17.2", "3.99.1"])
def test_server_of_the_same_major_version_fits(server: str) -> None:
    check_compatible(server=server, client="3.17.2")


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("2.22.1", "the server is MLflow 2.22.1"),
        ("4.0.0", "the server is MLflow 4.0.0, this client 3.17.2"),
        ("<!doctype html>", "no MLflow version"),
        ("", "no MLflow version"),
    ],
)
def test_server_of_another_age_or_kind_fails_the_step(server: str, reason: str) -> None:
    with pytest.raises(StepFailed) as broken:
        check_compatible(server=server, client="3.17.2")
    assert reason in broken.value.seen


@pytest.mark.parametrize(
    ("status", "reason", "remedy"),
    [
        (503, "/health answered 503", "no healthy task"),
        (502, "/health answered 502", "no healthy task"),
        (401, "identity", "docs/smoke.md"),
        (302, "identity", "docs/smoke.md"),
    ],
)
def test_answer_other_than_200_fails_the_step(
    status: int, reason: str, remedy: str, offline: Offline
) -> None:
    answer = SimpleNamespace(status_code=status, text="")
    smoke = offline(request=lambda *_: answer)
    with pytest.raises(StepFailed) as broken:
        server_is_healthy(smoke)
    assert reason in broken.value.seen
    assert remedy in broken.value.next_action


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"serving": True, "reason": None}, ", the fast path too"),
        (
            {"serving": False, "reason": "turned off by MLFLOW_AWS_FAST_PATH"},
            "; its fast path is turned off by MLFLOW_AWS_FAST_PATH",
        ),
        (None, ""),
    ],
)
def test_step_says_what_the_server_says_of_its_fast_path(
    told: dict[str, object] | None, said: str, offline: Offline
) -> None:
    answer = SimpleNamespace(status_code=200, json=lambda: {"fast_path": told})
    assert _fast_path(offline(request=lambda *_: answer)) == said


def test_fast_path_that_was_lost_fails_the_step(offline: Offline) -> None:
    told = {"process": 7, "fast_path": {"serving": False, "reason": "schema x, tested only with y"}}
    answer = SimpleNamespace(status_code=200, json=lambda: told)
    with pytest.raises(StepFailed) as broken:
        _fast_path(offline(request=lambda *_: answer))
    assert "process 7" in broken.value.seen
    assert "schema x" in broken.value.seen
    assert "docs/fast-path.md" in broken.value.next_action
