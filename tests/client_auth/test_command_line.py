from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest
from mlflow_aws_auth import artifacts, web_identity
from mlflow_aws_auth.__main__ import main
from mlflow_aws_auth.artifacts import Access

from tests.client_auth.standins import ROLE, Sts, Tracking


@pytest.fixture(autouse=True)
def access(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "check", lambda *_, must_write: Access(True, must_write))


def test_whoami_says_who_you_are(sts: Sts, tracking: Tracking, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whoami", tracking.url]) == 0
    assert f"you are    {ROLE}" in capsys.readouterr().out


def test_whoami_as_json_is_the_servers_answer(
    sts: Sts, tracking: Tracking, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["whoami", "--json", tracking.url]) == 0
    assert json.loads(capsys.readouterr().out)["role"] == "contributor"


def test_token_goes_to_a_pipe(sts: Sts, tracking: Tracking, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", tracking.url]) == 0
    assert web_identity.subject(capsys.readouterr().out) == ROLE


def test_token_file_is_for_its_owner_only(sts: Sts, tracking: Tracking, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("an older one that others may read")
    path.chmod(0o644)
    assert main(["token", "--output", str(path), tracking.url]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert web_identity.subject(path.read_text()) == ROLE


def test_token_does_not_go_to_a_terminal(
    sts: Sts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["token", tracking.url]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--output FILE" in captured.err


def test_tracking_uri_is_the_default_server(
    sts: Sts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.url)
    assert main(["whoami"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["token"], "no server was named"),
        (["token", "--profile", "nobody", "https://localhost"], "there is no AWS profile 'nobody'"),
        (["token", "http://mlflow.example.com"], "is not encrypted"),
    ],
)
def test_call_that_cannot_work_ends_with_one_message(
    sts: Sts, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert "next: " in captured.err
    assert captured.out == ""


def test_problem_with_artifacts_makes_whoami_fail(
    sts: Sts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "check", lambda *_, must_write: Access(False, False, "no"))
    assert main(["whoami", tracking.url]) == 1
