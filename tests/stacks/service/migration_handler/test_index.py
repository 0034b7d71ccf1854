"""The function behind the custom resource, against an ECS of our own."""

import io
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stacks.service.migration_handler import index

TASK = "arn:aws:ecs:eu-central-1:111122223333:task/cluster/0123456789abcdef"
FUTURE = time.monotonic() + 1e6
PROPERTIES = {
    "Cluster": "arn:aws:ecs:eu-central-1:111122223333:cluster/cluster",
    "TaskDefinition": "arn:aws:ecs:eu-central-1:111122223333:task-definition/migration:7",
    "Container": "server",
    "Subnets": ["subnet-1", "subnet-2"],
    "SecurityGroups": ["sg-1"],
    "LogGroup": "log",
    "LogStreamPrefix": "migrate",
}


def event(request_type: str = "Create") -> dict[str, Any]:
    return {
        "RequestType": request_type,
        "RequestId": "9f0c1a2e-0000-4000-8000-000000000000",
        "StackId": "arn:aws:cloudformation:eu-central-1:111122223333:stack/service/1",
        "LogicalResourceId": "MigrationCompleted",
        "ResponseURL": "https://cloudformation.example/answer",
        "ResourceProperties": PROPERTIES,
    }


class Ecs:
    """A cluster in which one task passes through the given states."""

    def __init__(self, *states: dict[str, Any], failures: list[dict[str, str]] | None = None) -> None:
        self.states = list(states)
        self.failures = failures or []
        self.started: list[dict[str, Any]] = []
        self.stopped: list[dict[str, Any]] = []
        self.refusals: list[str] = []

    def run_task(self, **request: Any) -> dict[str, Any]:
        if self.refusals:
            raise ClientError({"Error": {"Code": self.refusals.pop()}}, "RunTask")
        self.started.append(request)
        return {"tasks": [] if self.failures else [{"taskArn": TASK}], "failures": self.failures}

    def describe_tasks(self, *, cluster: str, tasks: list[str]) -> dict[str, Any]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"tasks": [{"taskArn": TASK, **state}] if state else []}

    def stop_task(self, **request: Any) -> None:
        self.stopped.append(request)
        self.states = [stopped(137, stoppedReason=request["reason"])]


class Logs:
    class exceptions:  # noqa: N801
        class ResourceNotFoundException(Exception):  # noqa: N818
            pass

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        self.asked: list[dict[str, Any]] = []

    def get_log_events(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        if not self.lines:
            raise self.exceptions.ResourceNotFoundException
        return {"events": [{"message": line} for line in self.lines]}


class CloudFormation:
    def __init__(self, status: str) -> None:
        self.status = status

    def describe_stacks(self, *, StackName: str) -> dict[str, Any]:  # noqa: N803
        return {"Stacks": [{"StackStatus": self.status}]}


def clients(ecs: Ecs, *, logs: Logs, status: str) -> Callable[[str], Any]:
    return {"ecs": ecs, "logs": logs, "cloudformation": CloudFormation(status)}.__getitem__


RUNNING: dict[str, Any] = {"lastStatus": "RUNNING", "containers": [{"name": "server"}]}


def stopped(exit_code: int | None, **more: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "server"}
    if exit_code is not None:
        container["exitCode"] = exit_code
    return {"lastStatus": "STOPPED", "containers": [container], **more}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.fixture
def act() -> Callable[..., str]:
    def act(ecs: Ecs, *, request: str = "Create", status: str = "CREATE_IN_PROGRESS", **more: Any) -> str:
        return index.act(
            event(request),
            client=clients(ecs, logs=more.get("logs", Logs()), status=status),
            deadline=more.get("deadline", FUTURE),
        )

    return act


def test_creating_the_stack_runs_the_task_to_its_end(act: Callable[..., str], pauses: list[float]) -> None:
    ecs = Ecs({}, RUNNING, RUNNING, stopped(0))
    assert act(ecs) == "migrated by task 0123456789abcdef"
    assert len(ecs.started) == 1
    assert pauses == [index.POLL_SECONDS] * 3


def test_the_task_runs_where_and_as_the_template_says(act: Callable[..., str]) -> None:
    ecs = Ecs(stopped(0))
    act(ecs)
    (request,) = ecs.started
    assert request["cluster"] == PROPERTIES["Cluster"]
    assert request["taskDefinition"] == PROPERTIES["TaskDefinition"]
    assert request["networkConfiguration"]["awsvpcConfiguration"] == {
        "subnets": ["subnet-1", "subnet-2"],
        "securityGroups": ["sg-1"],
        "assignPublicIp": "DISABLED",
    }
    assert "overrides" not in request


def test_a_repeated_request_does_not_start_a_second_task(act: Callable[..., str]) -> None:
    ecs = Ecs(stopped(0))
    act(ecs)
    act(ecs)
    tokens = {request["clientToken"] for request in ecs.started}
    assert tokens == {event()["RequestId"]}
    assert len(event()["RequestId"]) <= 64


def test_updating_the_stack_runs_the_task(act: Callable[..., str]) -> None:
    ecs = Ecs(stopped(0))
    act(ecs, request="Update", status="UPDATE_IN_PROGRESS")
    assert len(ecs.started) == 1


def test_deleting_the_stack_runs_nothing(act: Callable[..., str]) -> None:
    ecs = Ecs(stopped(0))
    act(ecs, request="Delete", status="DELETE_IN_PROGRESS")
    assert ecs.started == []


@pytest.mark.parametrize("status", ["UPDATE_ROLLBACK_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"])
def test_rolling_back_runs_nothing(act: Callable[..., str], status: str) -> None:
    ecs = Ecs(stopped(0))
    assert status in act(ecs, request="Update", status=status)
    assert ecs.started == []


def test_a_failed_task_is_quoted(act: Callable[..., str]) -> None:
    logs = Logs("upgrading", "relation does not exist")
    with pytest.raises(index.MigrationFailedError) as failure:
        act(Ecs(stopped(1, stoppedReason="Essential container in task exited")), logs=logs)
    text = str(failure.value)
    assert "exit code 1" in text
    assert "Essential container in task exited" in text
    assert "upgrading\nrelation does not exist" in text
    assert "deploy again" in text
    assert logs.asked[0]["logStreamName"] == "migrate/server/0123456789abcdef"


def test_a_task_that_never_ran_says_why(act: Callable[..., str]) -> None:
    with pytest.raises(index.MigrationFailedError) as failure:
        act(Ecs(stopped(None, stoppedReason="CannotPullContainerError: not found")))
    assert "CannotPullContainerError: not found; it never ran" in str(failure.value)
    assert "It wrote no log." in str(failure.value)


def test_a_task_that_cannot_start_says_why(act: Callable[..., str]) -> None:
    ecs = Ecs(failures=[{"reason": "RESOURCE:ENI", "detail": "no address left"}])
    with pytest.raises(index.MigrationFailedError, match="RESOURCE:ENI no address left"):
        act(ecs)


def test_a_permission_that_is_not_known_everywhere_yet_is_waited_for(
    act: Callable[..., str], pauses: list[float]
) -> None:
    ecs = Ecs(stopped(0))
    ecs.refusals = ["AccessDeniedException"] * 3
    assert act(ecs).startswith("migrated")
    assert pauses == [index.POLL_SECONDS] * 3


def test_a_permission_that_never_comes_fails(act: Callable[..., str]) -> None:
    ecs = Ecs(stopped(0))
    ecs.refusals = ["AccessDeniedException"] * index.PERMISSION_ATTEMPTS
    with pytest.raises(ClientError, match="AccessDeniedException"):
        act(ecs)


def test_any_other_refusal_fails_at_once(act: Callable[..., str], pauses: list[float]) -> None:
    ecs = Ecs(stopped(0))
    ecs.refusals = ["ClusterNotFoundException"]
    with pytest.raises(ClientError, match="ClusterNotFoundException"):
        act(ecs)
    assert pauses == []


def test_a_task_that_takes_too_long_is_stopped_before_the_answer(act: Callable[..., str]) -> None:
    ecs = Ecs(RUNNING)
    with pytest.raises(index.MigrationFailedError, match="took too long"):
        act(ecs, deadline=time.monotonic())
    assert [request["task"] for request in ecs.stopped] == [TASK]


def test_an_answer_fits_cloudformation_however_long_the_log_is(act: Callable[..., str]) -> None:
    with pytest.raises(index.MigrationFailedError) as failure:
        act(Ecs(stopped(1)), logs=Logs(*["x" * 500] * 20))
    assert len(json.dumps(str(failure.value))) < 4096 - 500


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 900_000


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        assert request.method == "PUT"
        assert request.full_url == event()["ResponseURL"]
        assert isinstance(request.data, bytes)
        sent.append(json.loads(request.data))
        return io.BytesIO()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return sent


def test_success_is_answered(monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]) -> None:
    monkeypatch.setattr("boto3.client", clients(Ecs(stopped(0)), logs=Logs(), status="CREATE_IN_PROGRESS"))
    index.handler(event(), Context())
    (answer,) = answers
    assert answer["Status"] == "SUCCESS"
    assert answer["PhysicalResourceId"] == "migration"
    assert {key: answer[key] for key in ("StackId", "RequestId", "LogicalResourceId")} == {
        key: event()[key] for key in ("StackId", "RequestId", "LogicalResourceId")
    }


def test_failure_is_answered(monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]) -> None:
    monkeypatch.setattr("boto3.client", clients(Ecs(stopped(1)), logs=Logs(), status="CREATE_IN_PROGRESS"))
    index.handler(event(), Context())
    assert [answer["Status"] for answer in answers] == ["FAILED"]


def test_even_an_unforeseen_error_is_answered(
    monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]
) -> None:
    def refuse(name: str) -> Any:
        raise RuntimeError(f"no {name} today")

    monkeypatch.setattr("boto3.client", refuse)
    index.handler(event(), Context())
    assert [(answer["Status"], answer["Reason"]) for answer in answers] == [
        ("FAILED", "no cloudformation today")
    ]


def test_deletion_is_answered_even_without_any_permission_left(
    monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]]
) -> None:
    def refuse(name: str) -> Any:
        raise RuntimeError(f"no {name} today")

    monkeypatch.setattr("boto3.client", refuse)
    index.handler(event("Delete"), Context())
    assert [answer["Status"] for answer in answers] == ["SUCCESS"]
