"""The function behind the custom resource, against AWS as botocore's stubs have it."""

import io
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from stacks.service.migration_handler import index

TASK = "arn:aws:ecs:eu-central-1:111122223333:task/cluster/0123456789abcdef"
STACK = "arn:aws:cloudformation:eu-central-1:111122223333:stack/service/1"
PROPERTIES = {
    "Cluster": "arn:aws:ecs:eu-central-1:111122223333:cluster/cluster",
    "TaskDefinition": "arn:aws:ecs:eu-central-1:111122223333:task-definition/migration:7",
    "Subnets": ["subnet-1", "subnet-2"],
    "SecurityGroups": ["sg-1"],
}
REQUEST_ID = "9f0c1a2e-0000-4000-8000-000000000000"
STARTED = {"tasks": [{"taskArn": TASK}], "failures": []}
IN_PROGRESS = "UPDATE_IN_PROGRESS"


def request(kind: str = "Create", *, task: str | None = None) -> dict[str, Any]:
    """What CloudFormation sends; `task` is the resource's identity so far."""
    return {
        "RequestType": kind,
        "RequestId": REQUEST_ID,
        "StackId": STACK,
        "LogicalResourceId": "MigrationStarted",
        "ResponseURL": "https://cloudformation.example/answer",
        "ResourceProperties": PROPERTIES,
        **({"PhysicalResourceId": task} if task else {}),
    }


def stopped(exit_code: int | None, **more: Any) -> dict[str, Any]:
    """What the rule sends when the task has stopped."""
    container: dict[str, Any] = {"name": "server"}
    if exit_code is not None:
        container["exitCode"] = exit_code
    return {
        "Task": {
            "taskArn": TASK,
            "lastStatus": "STOPPED",
            "stopCode": "EssentialContainerExited",
            "containers": [container],
            **more,
        },
        "Signal": "https://cloudformation.example/signal",
        "Container": "server",
        "LogGroup": "log",
        "LogStreamPrefix": "migrate",
    }


class Aws:
    """Stubbed clients: what is asked of them, in this order and no other way, is answered."""

    def __init__(self) -> None:
        self.clients = {
            name: boto3.client(name, aws_access_key_id="example", aws_secret_access_key="example")
            for name in ("ecs", "logs", "cloudformation")
        }
        self.stubs = {name: Stubber(client) for name, client in self.clients.items()}
        for stub in self.stubs.values():
            stub.activate()

    def client(self, name: str) -> Any:
        return self.clients[name]

    def stack_is(self, status: str) -> None:
        stack = {"StackName": "service", "CreationTime": 0, "StackStatus": status}
        self.stubs["cloudformation"].add_response(
            "describe_stacks", {"Stacks": [stack]}, {"StackName": STACK}
        )

    def runs_task(self, answer: dict[str, Any], *, token: str = REQUEST_ID) -> None:
        expected = {
            "cluster": PROPERTIES["Cluster"],
            "taskDefinition": PROPERTIES["TaskDefinition"],
            "launchType": "FARGATE",
            "count": 1,
            "clientToken": token,
            "networkConfiguration": {
                "awsvpcConfiguration": {
                    "subnets": ["subnet-1", "subnet-2"],
                    "securityGroups": ["sg-1"],
                    "assignPublicIp": "DISABLED",
                }
            },
        }
        self.stubs["ecs"].add_response("run_task", answer, expected)

    def refuses_to_run(self, code: str) -> None:
        self.stubs["ecs"].add_client_error("run_task", code)

    def stops_task(self) -> None:
        self.stubs["ecs"].add_response(
            "stop_task", {}, {"cluster": PROPERTIES["Cluster"], "task": TASK, "reason": ANY}
        )

    def logged(self, *lines: str) -> None:
        self.stubs["logs"].add_response(
            "get_log_events",
            {"events": [{"message": line} for line in lines]},
            {
                "logGroupName": "log",
                "logStreamName": "migrate/server/0123456789abcdef",
                "limit": index.LOG_LINES,
                "startFromHead": False,
            },
        )


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    aws = Aws()
    monkeypatch.setattr("boto3.client", aws.client)
    yield aws
    for stub in aws.stubs.values():
        stub.assert_no_pending_responses()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The URLs and documents that CloudFormation was sent."""
    sent: list[tuple[str, dict[str, Any]]] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        assert request.method == "PUT"
        # CloudFormation's URLs are signed for a request without one.
        assert request.get_header("Content-type") == ""
        assert isinstance(request.data, bytes)
        sent.append((request.full_url, json.loads(request.data)))
        return io.BytesIO()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return sent


@pytest.fixture
def answer(aws: Aws, sent: list[tuple[str, dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    """What a request of CloudFormation is answered."""

    def answer(event: dict[str, Any]) -> dict[str, Any]:
        index.handler(event, None)
        ((url, document),) = sent
        assert url == event["ResponseURL"]
        assert {key: document[key] for key in ("StackId", "RequestId", "LogicalResourceId")} == {
            key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")
        }
        return document

    return answer


@pytest.fixture
def signal(aws: Aws, sent: list[tuple[str, dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    """What the wait condition is told about a task that has stopped."""

    def signal(event: dict[str, Any]) -> dict[str, Any]:
        index.handler(event, None)
        ((url, document),) = sent
        assert url == event["Signal"]
        assert document["UniqueId"] == "0123456789abcdef"
        return document

    return signal


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_a_deployment_starts_the_task_and_waits_for_nothing(
    answer: Callable[..., dict[str, Any]], aws: Aws, pauses: list[float], kind: str
) -> None:
    aws.stack_is(IN_PROGRESS)
    aws.runs_task(STARTED)
    answered = answer(request(kind, task="the task before" if kind == "Update" else None))
    assert (answered["Status"], answered["PhysicalResourceId"]) == ("SUCCESS", TASK)
    assert pauses == []


def test_a_repeated_request_does_not_start_a_second_task(aws: Aws, sent: list[Any]) -> None:
    for _ in range(2):
        aws.stack_is(IN_PROGRESS)
        # ECS starts one task for one token.
        aws.runs_task(STARTED, token=REQUEST_ID)
        index.handler(request(), None)
    assert len({document["PhysicalResourceId"] for _, document in sent}) == 1
    assert len(REQUEST_ID) <= 64


def test_a_task_that_cannot_start_fails_the_deployment_at_once(
    answer: Callable[..., dict[str, Any]], aws: Aws
) -> None:
    aws.stack_is(IN_PROGRESS)
    aws.runs_task({"tasks": [], "failures": [{"reason": "RESOURCE:ENI", "detail": "no address left"}]})
    answered = answer(request())
    assert answered["Status"] == "FAILED"
    assert "RESOURCE:ENI no address left" in answered["Reason"]


def test_a_permission_that_is_not_known_everywhere_yet_is_waited_for(
    answer: Callable[..., dict[str, Any]], aws: Aws, pauses: list[float]
) -> None:
    aws.stack_is(IN_PROGRESS)
    for _ in range(3):
        aws.refuses_to_run("AccessDeniedException")
    aws.runs_task(STARTED)
    assert answer(request())["Status"] == "SUCCESS"
    assert pauses == [index.POLL_SECONDS] * 3


@pytest.mark.parametrize(
    ("code", "attempts"),
    [("AccessDeniedException", index.PERMISSION_ATTEMPTS), ("ClusterNotFoundException", 1)],
)
def test_a_refusal_that_stays_fails_the_deployment(
    answer: Callable[..., dict[str, Any]], aws: Aws, code: str, attempts: int
) -> None:
    aws.stack_is(IN_PROGRESS)
    for _ in range(attempts):
        aws.refuses_to_run(code)
    answered = answer(request())
    assert answered["Status"] == "FAILED"
    assert code in answered["Reason"]


@pytest.mark.parametrize("status", ["UPDATE_ROLLBACK_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"])
def test_rolling_back_starts_nothing_and_stops_what_runs(
    answer: Callable[..., dict[str, Any]], aws: Aws, status: str
) -> None:
    aws.stack_is(status)
    aws.stops_task()
    answered = answer(request("Update", task=TASK))
    # At another identity, CloudFormation would delete this one.
    assert (answered["Status"], answered["PhysicalResourceId"]) == ("SUCCESS", TASK)


def test_rolling_back_a_migration_that_never_started_does_nothing(
    answer: Callable[..., dict[str, Any]], aws: Aws
) -> None:
    aws.stack_is("UPDATE_ROLLBACK_IN_PROGRESS")
    assert answer(request("Update", task="no task"))["Status"] == "SUCCESS"


def test_deleting_stops_what_runs(answer: Callable[..., dict[str, Any]], aws: Aws) -> None:
    aws.stops_task()
    assert answer(request("Delete", task=TASK))["Status"] == "SUCCESS"


@pytest.mark.parametrize("code", ["InvalidParameterException", "AccessDeniedException"])
def test_deleting_succeeds_whatever_ecs_says(
    answer: Callable[..., dict[str, Any]], aws: Aws, code: str
) -> None:
    aws.stubs["ecs"].add_client_error("stop_task", code)
    assert answer(request("Delete", task=TASK))["Status"] == "SUCCESS"


@pytest.mark.parametrize("kind", ["Create", "Update", "Delete"])
def test_an_unforeseen_error_is_answered(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[..., dict[str, Any]], kind: str
) -> None:
    def refuse(name: str) -> Any:
        raise RuntimeError(f"no {name} today")

    monkeypatch.setattr("boto3.client", refuse)
    answered = answer(request(kind, task=None if kind == "Create" else TASK))
    # Nothing keeps a stack from being deleted.
    assert answered["Status"] == ("SUCCESS" if kind == "Delete" else "FAILED")
    assert kind == "Delete" or answered["Reason"] == "no cloudformation today"


def test_success_is_signalled_with_what_took_how_long(
    signal: Callable[..., dict[str, Any]], aws: Aws
) -> None:
    aws.logged("upgrading", '{"phase":"all","schema":"b","snapshot":"s","seconds":{"lock":0.0,"schema":2.5}}')
    told = signal(stopped(0))
    assert told["Status"] == "SUCCESS"
    assert told["Reason"] == told["Data"] == "migrated to b: schema 2.5 s; snapshot s"


def test_success_without_a_last_line_is_success(signal: Callable[..., dict[str, Any]], aws: Aws) -> None:
    aws.logged("upgrading", "[1]", "{}")
    assert signal(stopped(0))["Reason"] == "migrated"


def test_a_failed_task_is_quoted(signal: Callable[..., dict[str, Any]], aws: Aws) -> None:
    aws.logged("upgrading", "relation does not exist")
    told = signal(stopped(1, stoppedReason="Essential container in task exited"))
    assert told["Status"] == "FAILURE"
    assert "exit code 1" in told["Reason"]
    assert "Essential container in task exited" in told["Reason"]
    assert "upgrading\nrelation does not exist" in told["Reason"]
    assert "deploy again" in told["Reason"]


def test_a_task_that_never_ran_says_why(signal: Callable[..., dict[str, Any]], aws: Aws) -> None:
    for _ in range(index.LOG_ATTEMPTS):
        aws.stubs["logs"].add_client_error("get_log_events", "ResourceNotFoundException")
    told = signal(
        stopped(None, stopCode="TaskFailedToStart", stoppedReason="CannotPullContainerError: not found")
    )
    assert told["Status"] == "FAILURE"
    assert "CannotPullContainerError: not found; it never ran" in told["Reason"]
    assert "It wrote no log." in told["Reason"]


@pytest.mark.parametrize("exit_code", [0, 143])
def test_a_task_that_somebody_stopped_has_failed(
    signal: Callable[..., dict[str, Any]], aws: Aws, exit_code: int
) -> None:
    aws.logged("upgrading")
    told = signal(stopped(exit_code, stopCode="UserInitiated", stoppedReason="by hand"))
    assert told["Status"] == "FAILURE"
    assert "by hand" in told["Reason"]


def test_last_lines_that_arrive_late_are_waited_for(signal: Callable[..., dict[str, Any]], aws: Aws) -> None:
    aws.stubs["logs"].add_client_error("get_log_events", "ResourceNotFoundException")
    aws.logged()
    aws.logged("relation does not exist")
    assert "relation does not exist" in signal(stopped(1))["Reason"]


def test_a_log_that_cannot_be_read_does_not_hide_the_failure(
    signal: Callable[..., dict[str, Any]], aws: Aws
) -> None:
    aws.stubs["logs"].add_client_error("get_log_events", "ThrottlingException")
    assert "exit code 1\nIts log could not be read" in signal(stopped(1))["Reason"]


def test_a_signal_fits_cloudformation_however_long_the_log_is(
    signal: Callable[..., dict[str, Any]], aws: Aws
) -> None:
    aws.logged(*["x" * 500] * 20)
    assert len(json.dumps(signal(stopped(1)))) < 4096


def fails(code: int) -> Callable[..., Any]:
    def urlopen(request: urllib.request.Request, timeout: float) -> Any:
        raise urllib.error.HTTPError(request.full_url, code, "no", Message(), None)

    return urlopen


def test_a_task_of_a_deployment_that_has_ended_is_nobody_s_concern(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", fails(403))
    index.handler(stopped(0), None)


def test_a_signal_that_does_not_arrive_is_sent_again_by_lambda(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", fails(503))
    with pytest.raises(urllib.error.HTTPError):
        index.handler(stopped(0), None)
