from __future__ import annotations

import datetime as dt
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from client_smoke.report import Report, check_writable, write
from client_smoke.verdict import CannotRun, Result, Status, exit_code


def report(*results: Result) -> Report:
    return Report(
        tracking_uri="https://mlflow.example.com",
        identifier="0123",
        started=dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        seconds=12.3456,
        versions={"mlflow": "3.17.2"},
        results=results,
        remains=["an experiment"],
        code=exit_code(list(results)),
    )


PASSED = Result("one", "it holds", Status.PASSED, 1.5, observed="evidence")
BROKEN = Result("two", "it holds, too", Status.FAILED, 0.5, seen="a \x1b<problem>", next_action="repair")
SKIPPED = Result("three", "it would hold", Status.SKIPPED, 0.0, observed="needs: it holds, too")
ERROR = Result("four", "it runs", Status.COULD_NOT_RUN, 0.0, seen="no", next_action="open")


def test_json_says_what_should_hold_what_was_seen_and_what_to_do() -> None:
    document = json.loads(report(PASSED, BROKEN, SKIPPED).as_json())
    assert document["exit_code"] == 1
    assert document["verdict"] == "promise broken"
    assert document["started"] == "2026-01-02T03:04:05+00:00"
    assert document["remains"] == ["an experiment"]
    assert document["steps"][1] == {
        "name": "two",
        "promise": "it holds, too",
        "status": "broken",
        "seconds": 0.5,
        "observed": "",
        "seen": "a \x1b<problem>",
        "next": "repair",
    }


def test_junit_counts_and_survives_control_characters() -> None:
    suite = ElementTree.fromstring(report(PASSED, BROKEN, SKIPPED, ERROR).as_junit())[0]
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    failure = suite[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "a \ufffd<problem>"
    assert failure.text == "next: repair"
    assert suite[2].find("skipped") is not None
    assert suite[3].find("error") is not None


def test_report_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    write(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_report_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    check_writable(tmp_path / "report.json")
    for path in (tmp_path / "nowhere" / "report.json", tmp_path):
        with pytest.raises(CannotRun, match="cannot be written"):
            check_writable(path)
