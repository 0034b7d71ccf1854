"""A one-off task is started as its stack says, followed, and its report comes back whole."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from mlflow_aws_server import progress
from mlflow_aws_server.logs import JsonFormatter

from operations import task
from operations.task import TaskFailedError, run
from tests.operations.answers import PLACE, TASK, Scripted, deployment, ecs, log


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "POLL_SECONDS", 0)
    monkeypatch.setattr(task, "LOG_SECONDS", 0)


def written(command: str, report: dict[str, Any], caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines with which the server's command ends."""
    with caplog.at_level(logging.INFO, "mlflow_aws_server.progress"):
        progress.report(command, phase="rows", outcome="done", ms=1500, rows=7)
        progress.publish(command, report)
    return [JsonFormatter().format(each) for each in caplog.records]


def test_the_report_comes_back_whatever_its_size(caplog: pytest.LogCaptureFixture) -> None:
    report = {"tables": {f'tabelle "{number}" ü': number for number in range(500)}}
    lines = written("count", report, caplog)
    assert len(lines) > 5
    said: list[str] = []
    aws = {"ecs": (service := ecs()), "logs": log("ResourceNotFoundException", lines[:3], [], lines[3:])}
    assert run(deployment(aws), "Count", arguments=["--of", "runs"], follow=said.append) == report
    (started,) = service.asked("run_task")
    assert started["overrides"]["containerOverrides"] == [
        {"name": "server", "command": ["count", "--of", "runs"]}
    ]
    assert started["networkConfiguration"]["awsvpcConfiguration"] == {
        "subnets": PLACE["subnets"],
        "securityGroups": PLACE["security_groups"],
        "assignPublicIp": "DISABLED",
    }
    assert said == ["count: task 0123", "count rows done 1.5 s rows=7", "count all done"]
    assert service.asked("stop_task") == []


def test_a_failure_quotes_the_end_of_the_log() -> None:
    lines = [f'{{"message": "line {number}"}}' for number in range(30)] + ["no JSON"]
    aws = {"ecs": ecs(exit_code=1), "logs": log(lines)}
    with pytest.raises(TaskFailedError) as failure:
        run(deployment(aws), "Count", follow=lambda _: None)
    told = str(failure.value)
    assert "it ended; exit code 1" in told
    assert "line 29\n  no JSON\nWhole log: log count/server/0123" in told
    assert "line 5\n" not in told


def test_a_task_that_never_ran_says_so() -> None:
    aws = {"ecs": ecs(exit_code=None), "logs": log("ResourceNotFoundException", "ResourceNotFoundException")}
    with pytest.raises(TaskFailedError, match=r"it never ran\n  It wrote no log"):
        run(deployment(aws), "Count", follow=lambda _: None)


def test_a_task_without_its_report_is_no_success(caplog: pytest.LogCaptureFixture) -> None:
    lines = written("count", {"rows": 1}, caplog)
    aws = {"ecs": ecs(), "logs": log(lines[:-1])}
    with pytest.raises(TaskFailedError, match="its report did not reach its log"):
        run(deployment(aws), "Count", follow=lambda _: None)


@pytest.mark.parametrize("moment", ["its id is told", "it runs"])
def test_whatever_interrupts_the_waiting_stops_the_task(moment: str) -> None:
    service = ecs()

    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    if moment == "it runs":
        service.answers["describe_tasks"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(
            deployment({"ecs": service, "logs": log()}),
            "Count",
            follow=interrupt if moment == "its id is told" else lambda _: None,
        )
    assert [each["task"] for each in service.asked("stop_task")] == [TASK]


def test_no_capacity_is_told() -> None:
    full = Scripted({"run_task": lambda **_: {"tasks": [], "failures": [{"reason": "RESOURCE:MEMORY"}]}})
    with pytest.raises(TaskFailedError, match="could not start the task count: RESOURCE:MEMORY"):
        run(deployment({"ecs": full, "logs": log()}), "Count")
