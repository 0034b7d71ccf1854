"""A deployment whose AWS is a script: what it answers, and what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from operations.deployment import Deployment
from stacks.config_file import CONFIG, load_environment

PLACE = {
    "command": "count",
    "cluster": "cluster",
    "task_definition": "arn:aws:ecs:eu-central-1:111122223333:task-definition/count:1",
    "subnets": ["subnet-1", "subnet-2"],
    "security_groups": ["sg-1"],
    "container": "server",
    "log_group": "log",
    "log_stream_prefix": "count",
}
TASK = "arn:aws:ecs:eu-central-1:111122223333:task/cluster/0123"


@dataclass
class Scripted:
    """Stands in for a boto3 client: each operation has its function; every call is kept.

    With the name of a service, each call is one that its API knows.
    """

    answers: dict[str, Callable[..., Any]]
    service: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**parameters: Any) -> Any:
            self.calls.append((operation, parameters))
            if self.service:
                shape = model(self.service).operation_model(api_name(self.service, operation)).input_shape
                report = ParamValidator().validate(parameters, shape)
                assert not report.has_errors(), report.generate_report()
            return self.answers[operation](**parameters)

        return call

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=lambda **parameters: [getattr(self, operation)(**parameters)])

    def asked(self, operation: str) -> list[dict[str, Any]]:
        return [parameters for name, parameters in self.calls if name == operation]


@cache
def model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


@cache
def api_name(service: str, method: str) -> str:
    """The API's name of a client's method."""
    return str(next(each for each in model(service).operation_names if xform_name(each) == method))


def deployment(clients: dict[str, Any]) -> Deployment:
    return Deployment(
        name="dev",
        environment=load_environment(name="dev", path=None, directory=CONFIG),
        account="111122223333",
        region="eu-central-1",
        client=clients.__getitem__,
        outputs={"OperationCount": json.dumps(PLACE)},
    )


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, "Operation")


def ecs(*, polls: int = 1, exit_code: int | None = 0) -> Scripted:
    """ECS with a task that runs for some polls and then stops with an exit code."""
    states = ["PENDING", *["RUNNING"] * polls, "STOPPED"]

    def describe(**_: Any) -> Any:
        status = states.pop(0) if len(states) > 1 else states[0]
        container = {"name": "server"} if exit_code is None else {"name": "server", "exitCode": exit_code}
        return {"tasks": [{"lastStatus": status, "containers": [container], "stoppedReason": "it ended"}]}

    return Scripted(
        {
            "run_task": lambda **_: {"tasks": [{"taskArn": TASK}], "failures": []},
            "describe_tasks": describe,
            "stop_task": lambda **_: {},
        }
    )


def log(*pages: Sequence[str] | str) -> Scripted:
    """A log that grows by a page with each token; a page that is a text is an error of that code."""
    waiting = list(pages)
    shown = 0

    def events(*, nextToken: str = "", **_: Any) -> Any:  # noqa: N803 - the API's
        nonlocal shown
        if waiting and isinstance(waiting[0], str):
            raise error(str(waiting.pop(0)))
        if nextToken == f"f/{shown}" and not waiting:
            return {"events": [], "nextForwardToken": nextToken}
        messages = waiting.pop(0) if waiting else []
        shown += 1
        return {"events": [{"message": each} for each in messages], "nextForwardToken": f"f/{shown}"}

    return Scripted({"get_log_events": events})
