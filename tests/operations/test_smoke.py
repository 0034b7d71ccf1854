"""The smoke client ends a deployment: it runs if it can, and says so if it cannot."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from operations import smoke as module
from operations.deployment import Deployment
from operations.errors import CannotRunError, FailedError
from operations.smoke import COMMAND, smoke
from tests.operations.answers import Scripted, deployment, error

URL = "https://mlflow.example.com"
ADMIN = {"principal": "arn:aws:iam::111122223333:role/ops", "role": "admin", "permissions": ["read", "write"]}


class Server:
    """What the server answers to `whoami`, in turn; how the smoke client ends, and `ran`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[Any] = [(200, ADMIN)]
        self.asked: list[str] = []
        self.code, self.ran = 0, list[tuple[list[str], dict[str, str]]]()
        monkeypatch.setattr(requests, "get", self.get)
        monkeypatch.setattr(subprocess, "run", self.run)
        monkeypatch.setattr(module, "_POLL_SECONDS", 0)
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_AWS_AUDIENCE"):
            monkeypatch.delenv(name, raising=False)

    def get(self, url: str, *, auth: Any, **_: Any) -> Any:
        assert auth(requests.Request("GET", url).prepare()).headers["Authorization"] == "Bearer signed"
        self.asked.append(url)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        code, body = answer
        return SimpleNamespace(status_code=code, text=str(body), json=lambda: body)

    def run(self, command: list[str], *, env: dict[str, str], **_: Any) -> Any:
        self.ran.append((command, env))
        return SimpleNamespace(returncode=self.code)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def deployed(token: Any = lambda **_: {"WebIdentityToken": "signed"}) -> Deployment:
    sts = Scripted({"get_web_identity_token": token}, service="sts")
    return dataclasses.replace(deployment({"sts": sts}), outputs={"TrackingUrl": URL, "TokenAudience": URL})


def test_it_runs_once_the_server_answers_as_this_shell_s_role(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody elsewhere")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    server.answers = [(503, ""), (502, ""), (200, ADMIN)]
    smoke(deployed(), lambda _: None)
    ((command, env),) = server.ran
    assert command[-2:] == ["--tracking-uri", URL]
    assert (env["MLFLOW_TRACKING_TOKEN"], env["AWS_REGION"]) == ("signed", "eu-central-1")
    assert "MLFLOW_TRACKING_USERNAME" not in env
    assert "signed" not in command


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (requests.ConnectionError("no such host"), "cannot be reached from here: no such host"),
        ((401, "no"), "does not know this shell's role"),
        ((403, "no role"), "no role"),
        ((200, {**ADMIN, "role": "viewer", "permissions": ["read"]}), "is viewer there"),
    ],
)
def test_what_it_cannot_prove_from_here_is_said_with_the_command_for_later(
    server: Server, answer: Any, why: str
) -> None:
    server.answers = [answer]
    with pytest.raises(CannotRunError, match=why) as raised:
        COMMAND.run(deployed(), argparse.Namespace(), lambda _: None)
    assert f"make smoke URL={URL}" in str(raised.value)
    assert not server.ran


def test_without_a_token_of_aws_nothing_is_asked(server: Server) -> None:
    def refused(**_: Any) -> Any:
        raise error("AccessDenied")

    with pytest.raises(CannotRunError, match="no token"):
        smoke(deployed(refused), lambda _: None)
    assert not server.asked


def test_a_step_that_failed_fails_with_the_way_back(server: Server) -> None:
    server.code = 1
    with pytest.raises(FailedError, match=r"make restore ENV=dev SNAPSHOT="):
        COMMAND.run(deployed(), argparse.Namespace(), lambda _: None)
    server.code = 2
    with pytest.raises(CannotRunError):
        smoke(deployed(), lambda _: None)


def test_a_server_that_stays_away_fails(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0)
    server.answers = [(503, "")]
    with pytest.raises(FailedError, match="still answers 503"):
        smoke(deployed(), lambda _: None)


def test_a_tunnel_is_taken_only_for_the_deployment_that_it_leads_to(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://localhost:8443")
    monkeypatch.setenv("MLFLOW_AWS_AUDIENCE", "https://another.example.com")
    smoke(deployed(), lambda _: None)
    monkeypatch.setenv("MLFLOW_AWS_AUDIENCE", URL)
    smoke(deployed(), lambda _: None)
    assert [each.removesuffix("/api/2.0/mlflow-aws/whoami") for each in server.asked] == [
        URL,
        "https://localhost:8443",
    ]
