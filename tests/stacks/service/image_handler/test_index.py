"""The function behind the image's custom resource, against a CodeBuild and a registry of our own."""

import io
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stacks.service.image_handler import index

DIGEST = "sha256:" + "1" * 64
BUILD = "Project:0123"
FUTURE = time.monotonic() + 1e6
RUNNING = {"buildStatus": "IN_PROGRESS"}
SUCCEEDED = {"buildStatus": "SUCCEEDED"}
FAILED = {
    "buildStatus": "FAILED",
    "phases": [
        {"phaseType": "SUBMITTED"},
        {"phaseType": "BUILD", "contexts": [{"message": "docker build: exit status 1"}, {"message": ""}]},
    ],
    "logs": {"groupName": "log", "streamName": "0123"},
}


def event(request_type: str = "Create") -> dict[str, Any]:
    return {
        "RequestType": request_type,
        "RequestId": "9f0c1a2e-0000-4000-8000-000000000000",
        "StackId": "arn:aws:cloudformation:eu-central-1:111122223333:stack/service/1",
        "LogicalResourceId": "ImageBuilt",
        "ResponseURL": "https://cloudformation.example/answer",
        "ResourceProperties": {"Project": "Project", "Repository": "repository", "Tag": "tag"},
    }


def refusal(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


class Account:
    """A project whose build passes through the given states, a registry and a log."""

    class exceptions:  # noqa: N801
        class ResourceNotFoundException(Exception):  # noqa: N818
            pass

    def __init__(self, *states: dict[str, Any], pushed: bool = False, lines: tuple[str, ...] = ()) -> None:
        self.states, self.pushed, self.lines = list(states), pushed, lines
        self.started: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.refusals: list[ClientError] = []

    def client(self, name: str) -> Any:
        assert name in {"ecr", "codebuild", "logs"}
        return self

    def describe_images(self, **request: Any) -> dict[str, Any]:
        assert request == {"repositoryName": "repository", "imageIds": [{"imageTag": "tag"}]}
        if not self.pushed:
            raise refusal("ImageNotFoundException")
        return {"imageDetails": [{"imageDigest": DIGEST}]}

    def start_build(self, **request: Any) -> dict[str, Any]:
        if self.refusals:
            raise self.refusals.pop()
        self.started.append(request)
        return {"build": {"id": BUILD}}

    def batch_get_builds(self, *, ids: list[str]) -> dict[str, Any]:
        assert ids == [BUILD]
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        self.pushed = self.pushed or state == SUCCEEDED
        return {"builds": [state]}

    def stop_build(self, *, id: str) -> None:
        self.stopped.append(id)
        self.states = [{**FAILED, "buildStatus": "STOPPED"}]

    def get_log_events(self, **request: Any) -> dict[str, Any]:
        assert (request["logGroupName"], request["logStreamName"]) == ("log", "0123")
        if not self.lines:
            raise self.exceptions.ResourceNotFoundException
        return {"events": [{"message": line} for line in self.lines]}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def act(account: Account, request: str = "Create", *, deadline: float = FUTURE) -> Any:
    return index.act(event(request), client=account.client, deadline=deadline)


@pytest.mark.parametrize("request_type", ["Create", "Update"])
def test_an_image_that_is_not_there_is_built(request_type: str, pauses: list[float]) -> None:
    account = Account(RUNNING, RUNNING, SUCCEEDED)
    assert act(account, request_type) == {"Digest": DIGEST}
    assert account.started == [{"projectName": "Project", "idempotencyToken": event()["RequestId"]}]
    assert pauses == [index.POLL_SECONDS] * 2


def test_an_image_that_is_there_is_not_built_again() -> None:
    account = Account(pushed=True)
    assert act(account, "Update") == {"Digest": DIGEST}
    assert account.started == []


def test_deleting_the_stack_builds_nothing() -> None:
    assert index.act(event("Delete"), client=lambda name: pytest.fail(name), deadline=FUTURE) == {}


def test_a_failed_build_is_quoted_with_the_remedy() -> None:
    account = Account(FAILED, lines=("Step 4/9 : RUN pip install\n", "ERROR: no such host\n"))
    with pytest.raises(index.BuildFailedError) as failed:
        act(account)
    text = str(failed.value)
    assert "ended as FAILED: docker build: exit status 1\n" in text
    assert "Step 4/9 : RUN pip install\nERROR: no such host\n" in text
    assert "Whole log: log 0123" in text
    assert 'server.build = "local"' in text


def test_a_build_that_took_no_step_says_that_it_wrote_no_log() -> None:
    with pytest.raises(index.BuildFailedError, match="It wrote no log"):
        act(Account({"buildStatus": "FAULT"}))
    with pytest.raises(index.BuildFailedError, match="It wrote no log"):
        act(Account(FAILED))


def test_a_build_that_pushed_nothing_fails() -> None:
    account = Account({**SUCCEEDED, "logs": {}})
    with pytest.raises(index.BuildFailedError, match="pushed no image repository:tag"):
        act(account)


def test_a_build_that_takes_too_long_is_stopped_before_the_answer() -> None:
    account = Account(RUNNING)
    with pytest.raises(index.BuildFailedError, match="took too long"):
        act(account, deadline=time.monotonic())
    assert account.stopped == [BUILD]


@pytest.mark.parametrize("code", index.NOT_YET)
def test_a_permission_that_is_not_known_everywhere_yet_is_waited_for(code: str, pauses: list[float]) -> None:
    account = Account(SUCCEEDED)
    account.refusals = [refusal(code)] * 3
    assert act(account) == {"Digest": DIGEST}
    assert pauses == [index.POLL_SECONDS] * 3


def test_a_permission_that_never_comes_fails() -> None:
    account = Account(SUCCEEDED)
    account.refusals = [refusal("AccessDeniedException")] * index.PERMISSION_ATTEMPTS
    with pytest.raises(index.BuildFailedError, match="AccessDeniedException"):
        act(account)


def test_a_new_account_without_build_machines_is_told_what_else_to_do(pauses: list[float]) -> None:
    account = Account(SUCCEEDED)
    account.refusals = [
        refusal("AccountLimitExceededException", "Cannot have more than 0 builds in queue for the account")
    ]
    with pytest.raises(index.BuildFailedError, match=r'more than 0 builds in queue.*server\.build = "local"'):
        act(account)
    assert pauses == []


def test_a_registry_that_refuses_is_not_taken_for_an_empty_one() -> None:
    account = Account(SUCCEEDED)
    account.describe_images = lambda **_: (_ for _ in ()).throw(refusal("AccessDeniedException"))  # type: ignore[method-assign]
    with pytest.raises(ClientError, match="AccessDeniedException"):
        act(account)


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 900_000


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], Any]], dict[str, Any]]:
    """Handle one request with these clients and return what CloudFormation was told."""
    sent: list[bytes] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        assert (request.method, request.full_url) == ("PUT", event()["ResponseURL"])
        assert isinstance(request.data, bytes)
        sent.append(request.data)
        return io.BytesIO()

    def handle(client: Callable[[str], Any]) -> dict[str, Any]:
        monkeypatch.setattr("boto3.client", client)
        index.handler(event(), Context())
        (answer,) = sent
        assert len(answer) < 4096
        told: dict[str, Any] = json.loads(answer)
        return told

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return handle


def test_the_answer_carries_the_digest(handle: Callable[..., dict[str, Any]]) -> None:
    assert handle(Account(SUCCEEDED).client) == {
        "Status": "SUCCESS",
        "Reason": "",
        "PhysicalResourceId": "image",
        "Data": {"Digest": DIGEST},
        **{key: event()[key] for key in ("StackId", "RequestId", "LogicalResourceId")},
    }


def test_failure_is_answered_however_long_the_log_is(handle: Callable[..., dict[str, Any]]) -> None:
    answer = handle(Account(FAILED, lines=("x" * 400 + "\n",) * 20).client)
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].endswith("on your machine.")


def test_even_an_unforeseen_error_is_answered(handle: Callable[..., dict[str, Any]]) -> None:
    def refuse(name: str) -> Any:
        raise RuntimeError(f"no {name} today")

    answer = handle(refuse)
    assert (answer["Status"], answer["Reason"]) == ("FAILED", "no ecr today")
