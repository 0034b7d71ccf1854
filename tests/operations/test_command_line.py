"""What every command has in common: help, exit codes, JSON beside the words."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import pytest

from operations import __main__ as cli
from operations.command import Command, Report, Say
from operations.deployment import Deployment
from operations.errors import CannotRunError, FailedError
from tests.operations.answers import PLACE, deployment


@pytest.fixture(autouse=True)
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deployment, "of", lambda *_, **__: deployment({}))


def run(monkeypatch: pytest.MonkeyPatch, act: Callable[..., Report], *arguments: str) -> int:
    def called(_deployment: Deployment, _options: argparse.Namespace, say: Say) -> Report:
        say("counting")
        return act()

    monkeypatch.setattr("signal.signal", lambda *_: None)
    return cli.main(["count", *arguments], commands=[Command(name="count", help="Count.", run=called)])


def raising(error: BaseException) -> Callable[[], Report]:
    def act() -> Report:
        raise error

    return act


def test_people_read_words_and_programs_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(text="seven runs", document={"runs": 7})
    assert run(monkeypatch, lambda: report) == 0
    assert capsys.readouterr() == (
        "seven runs\n",
        "count: dev, account 111122223333, region eu-central-1\ncounting\n",
    )
    assert run(monkeypatch, lambda: report, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"runs": 7}


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        (lambda: Report(text="", document={}, good=False), 1, ""),
        (raising(FailedError("no rows: look")), 1, "count: no rows: look"),
        (raising(CannotRunError("no stack")), 2, "count: no stack"),
        (raising(KeyboardInterrupt()), 130, "count: stopped"),
    ],
)
def test_the_exit_code_says_how_it_ended(
    act: Any, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, act) == code
    assert said in capsys.readouterr().err


def test_an_older_deployment_is_told_to_be_deployed_again() -> None:
    assert deployment({}).place("Count").command == PLACE["command"]
    with pytest.raises(CannotRunError, match="has no output OperationErase: `make deploy ENV=dev`"):
        deployment({}).place("Erase")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gc", "--days", "-1"], "-1 is not a number of days"),
        (["gc", "--days", "nan"], "nan is not a number of days"),
        (["restore", "--at", "yesterday"], "'yesterday' is not a time with its zone, such as"),
        (["restore-artifacts", "--of", "1", "--at", "2026-11-28T06:00:00"], "is not a time with its zone"),
        (["restore"], "one of the arguments --snapshot --at is required"),
    ],
)
def test_a_wrong_argument_begins_nothing(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
