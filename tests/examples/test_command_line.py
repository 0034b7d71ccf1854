from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from examples.credit_risk import autolog
from examples.credit_risk import train as command
from examples.credit_risk.train import TrainingResult, best, main

_RESULT = TrainingResult(
    strategy="random-forest",
    experiment="credit-risk/random-forest",
    run_id="run",
    children=("a", "b"),
    model_uri="models:/m-1",
    parameters={"max_depth": 8},
    metrics={"cv_roc_auc": 0.8, "test_roc_auc": 0.81, "test_accuracy": 0.79},
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replace training and registering by notes of what was asked; boosting is best."""
    calls: list[tuple[Any, ...]] = []

    def train(strategy: str, **options: Any) -> TrainingResult:
        calls.append(("train", strategy, options["seed"], options["weak"]))
        figure = {"logistic-regression": 0.7, "random-forest": 0.8, "gradient-boosting": 0.9}[strategy]
        return replace(_RESULT, strategy=strategy, metrics={**_RESULT.metrics, "cv_roc_auc": figure})

    def register(result: TrainingResult, name: str, **_: Any) -> TrainingResult:
        calls.append(("register", result.strategy, name))
        return replace(result, registered_as=name, version="7")

    monkeypatch.setattr(command, "train", train)
    monkeypatch.setattr(command, "register", register)
    return calls


def test_all_strategies_are_trained_and_only_the_best_is_registered(
    asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--strategy", "all", "--register", "credit-risk", "--json"]) == 0
    assert [call for call in asked if call[0] == "register"] == [
        ("register", "gradient-boosting", "credit-risk")
    ]
    assert len(asked) == 4
    printed = json.loads(capsys.readouterr().out)
    assert (printed["strategy"], printed["version"]) == ("gradient-boosting", "7")


def test_nothing_is_registered_unless_asked(asked: list[tuple[Any, ...]]) -> None:
    assert main(["--strategy", "random-forest", "--seed", "4", "--weak"]) == 0
    assert asked == [("train", "random-forest", 4, True)]


def test_text_says_what_was_chosen_and_where_it_is(
    asked: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--strategy", "random-forest", "--register", "credit-risk"])
    printed = capsys.readouterr().out
    assert "max_depth=8" in printed
    assert "models:/credit-risk/7" in printed


def test_best_of_several_is_found_without_looking_at_unseen_rows() -> None:
    lucky = replace(_RESULT, metrics={"cv_roc_auc": 0.7, "test_roc_auc": 0.99})
    assert best([lucky, _RESULT]) is _RESULT


@pytest.mark.parametrize("program", [lambda: main(["--strategy", "random-forest"]), lambda: autolog.main([])])
def test_without_a_server_nothing_is_trained(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert program() == 2
    assert "set MLFLOW_TRACKING_URI" in capsys.readouterr().err


def test_unreachable_server_is_one_message_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["--strategy", "random-forest", "--tracking-uri", "http://127.0.0.1:1"]) == 1
    assert "127.0.0.1" in capsys.readouterr().err


def test_interruption_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", interrupted)
    assert main(["--strategy", "random-forest"]) == 130


def test_unknown_strategy_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--strategy", "astrology"])
    assert stopped.value.code == 2
    assert "random-forest" in capsys.readouterr().err
