from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from client_smoke.cli import main
from client_smoke.steps import CLEANUP, STEPS
from tests.client_smoke.conftest import Deployment
from tests.client_smoke.deployment import environment, free_port, run_smoke, steps_by_name

_NOWHERE = "http://127.0.0.1:1"


def token_file(path: Path, token: str) -> str:
    path.touch(mode=0o600)
    path.write_text(token + "\n")
    return str(path)


@pytest.mark.slow
def test_deployment_that_works_passes(
    deployment: Deployment,
    client_environment: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report, junit = tmp_path / "smoke.json", tmp_path / "smoke.xml"
    tokens = [
        part
        for role in ("viewer", "approver")
        for part in (f"--{role}-token-file", token_file(tmp_path / role, deployment.token(role)))
    ]
    deployment.write_profile(tmp_path / "aws", "approver")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws"))
    reports = ["--json", str(report), "--junit", str(junit), "--approver-profile", "approver"]
    code = main(["--tracking-uri", deployment.target.url, "--require-all", *reports, *tokens])
    output = capsys.readouterr().out
    assert code == 0, output
    steps = steps_by_name(report)
    assert list(steps) == [step.name for step in (*STEPS, CLEANUP)]
    assert {step["status"] for step in steps.values()} == {"passed"}
    assert f"every step passed at {deployment.target.url} ({len(steps)} of {len(steps)} passed in" in output
    assert 'failures="0" errors="0" skipped="0"' in junit.read_text()
    assert leftovers(deployment, json.loads(report.read_text())["identifier"]) == []
    sent = [os.environ["MLFLOW_TRACKING_TOKEN"], (tmp_path / "viewer").read_text().strip()]
    for token in (*sent, (tmp_path / "approver").read_text().strip()):
        assert token not in output + report.read_text() + junit.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_removes_what_it_made(
    number: signal.Signals,
    deployment: Deployment,
    client_environment: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow.sklearn

    log_model = mlflow.sklearn.log_model

    def log_and_be_interrupted(*arguments: Any, **options: Any) -> None:
        # Finding the requirements takes seconds and is not what is tried here.
        log_model(*arguments, **options, pip_requirements=["scikit-learn"])
        signal.raise_signal(number)

    monkeypatch.setattr(mlflow.sklearn, "log_model", log_and_be_interrupted)
    report = tmp_path / "smoke.json"
    approver = ["--approver-token-file", token_file(tmp_path / "approver", deployment.token("approver"))]
    assert main(["--tracking-uri", deployment.target.url, "--json", str(report), *approver]) == 2
    steps = steps_by_name(report)
    assert steps["model_is_registered_as_taught"]["status"] == "interrupted", report.read_text()
    assert steps["version_predicts_the_same"]["status"] == "skipped"
    assert steps["nothing_stays_behind"]["status"] == "passed", steps["nothing_stays_behind"]
    assert "registered model removed" in steps["nothing_stays_behind"]["observed"]
    assert leftovers(deployment, json.loads(report.read_text())["identifier"]) == []
    assert "nothing is proven" in capsys.readouterr().out


def leftovers(deployment: Deployment, identifier: str) -> list[Any]:
    """What a run left behind, as seen by other clients."""
    import requests

    identity = {"Authorization": f"Bearer {deployment.token('viewer')}"}

    def post(path: str, **body: object) -> dict[str, Any]:
        answer = requests.post(
            f"{deployment.target.url}/api/2.0/mlflow/{path}",
            json=body,
            timeout=20,
            headers=identity,
            verify=str(deployment.ca.bundle),
        )
        found: dict[str, Any] = answer.json()
        return found

    name = f"name = 'smoke-{identifier}'"
    experiments = post("experiments/search", filter=name, max_results=9).get("experiments", [])
    deleted = post("experiments/search", filter=name, max_results=9, view_type="DELETED_ONLY")["experiments"]
    models = requests.get(
        f"{deployment.target.url}/api/2.0/mlflow/registered-models/search",
        params={"filter": name},
        timeout=20,
        headers=identity,
        verify=str(deployment.ca.bundle),
    ).json()
    prefix = deleted[0]["artifact_location"].removeprefix(f"s3://{deployment.bucket}/") + "/"
    s3 = deployment.aws["contributor"].client("s3")
    objects = s3.list_objects_v2(Bucket=deployment.bucket, Prefix=prefix)
    return [*experiments, *models.get("registered_models", []), *objects.get("Contents", [])]


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    script = (
        "import sys\nfrom client_smoke.cli import parser\nparser().format_help()\n"
        "print(sorted({'mlflow', 'sklearn', 'rich', 'boto3', 'requests'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], env=environment(_NOWHERE), capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_long_lived_access_key_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    environ = environment(_NOWHERE) | {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
    }
    report = tmp_path / "smoke.json"
    done = run_smoke(
        "--tracking-uri", f"https://localhost:{free_port()}", "--json", str(report), environ=environ
    )
    assert done.returncode == 2
    assert done.stderr.startswith("could not run: the AWS credentials are a long-lived access key (AKIA…)")
    assert "next: delete or disable that key in IAM" in done.stderr
    assert "Traceback" not in done.stderr
    for secret in ("IOSFODNN7EXAMPLE", "wJalrXUtnFEMI"):
        assert secret not in done.stdout + done.stderr + report.read_text()
    assert json.loads(report.read_text())["verdict"] == "could not run"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no tracking URI was given"),
        (["--tracking-uri", "http://localhost"], "not an https:// address"),
        (["--tracking-uri", "https://localhost", "--json", "/nowhere/smoke.json"], "cannot be written"),
    ],
)
def test_call_that_cannot_work_ends_with_one_clear_message(
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert "next: " in message
    assert "Traceback" not in message


def test_host_that_is_not_there_cannot_run(
    deployment: Deployment, client_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--tracking-uri", f"https://localhost:{free_port()}"]) == 2
    output = capsys.readouterr().out
    assert "could not run: the certificate is valid" in output
    assert "Connection refused" in output
    assert "nothing is proven" in output


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "inf", "nan"])
def test_timeout_must_be_a_sensible_number(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--timeout", seconds])
    assert end.value.code == 2
    assert "not a number of seconds" in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tracking-uri", "http://localhost", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
