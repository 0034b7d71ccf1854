"""`gc` asks the task for what the operator said, or the configuration, and shows what went."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import pytest

from operations import cleanup, task
from operations.command import Report
from operations.errors import CannotRunError
from stacks.config import CleanupConfig
from tests.operations.answers import deployment

ANSWER = {
    "dry_run": True,
    "deleted_before": 1,
    "rows": {"runs": 2, "metrics": 2_000_000},
    "objects": 3,
    "bytes": 4096,
    "kept": {f"runs {number}": "version 1 of the model 'm' rests on it" for number in range(21)},
    "elsewhere": ["s3://other/run"],
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    arguments: list[Any] = []

    def run(*_: Any, **how: Any) -> Any:
        arguments.append(how["arguments"])
        return ANSWER

    monkeypatch.setattr(task, "run", run)
    return arguments


def run(*, configured: int | None, days: float | None = None, dry_run: bool = False) -> Report:
    made = deployment({})
    environment = made.environment.model_copy(update={"cleanup": CleanupConfig(deleted_days=configured)})
    options = argparse.Namespace(days=days, dry_run=dry_run)
    return cleanup.COMMAND.run(replace(made, environment=environment), options, print)


def test_the_age_is_the_operator_s_or_the_configured_one(asked: list[Any]) -> None:
    run(configured=45)
    run(configured=45, days=7, dry_run=True)
    assert asked == [["--days", "45"], ["--days", "7", "--dry-run"]]


def test_without_an_age_nothing_is_begun(asked: list[Any]) -> None:
    with pytest.raises(CannotRunError, match=r"DAYS=30, or cleanup\.deleted_days in config/dev\.toml"):
        run(configured=None)
    assert asked == []


def test_the_report_names_what_went_and_why_the_rest_stayed(asked: list[Any]) -> None:
    report = run(configured=1)
    assert report.document == ANSWER
    lines = report.text.splitlines()
    assert lines[0] == "would go:"
    assert "     2,000,000 rows of metrics" in lines[2]
    assert "  runs 0: version 1 of the model 'm' rests on it" in lines
    assert "  and 1 more: --json" in lines
    assert lines[-1] == "  s3://other/run"
