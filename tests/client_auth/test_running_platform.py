"""The whole way once: the emulator's STS, the load balancer, the gate, S3 with IAM enforced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.environment import clean
from local.state import PROJECT

# The first test waits for the platform.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_PROGRAM = """
import json, os
import mlflow, mlflow_aws_auth
connection = mlflow_aws_auth.connect(os.environ["MLFLOW_TRACKING_URI"], quiet=True)
try:
    mlflow.set_experiment("signed in")
    with mlflow.start_run() as run:
        mlflow.log_metric("m", 1.0)
        mlflow.log_text("bytes", "file.txt")
    outcome = mlflow.get_run(run.info.run_id).data.tags["mlflow_aws.principal"]
except mlflow.MlflowException as error:
    outcome = error.error_code
print(json.dumps([connection.principal, connection.role, list(connection.problems), outcome]))
"""


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """A platform; its state is open to the user that PostgreSQL runs as when we are root."""
    directory = Path(tempfile.mkdtemp(prefix="mlflow-aws-auth-"))
    directory.chmod(0o711)
    try:
        local(directory / "state", "up")
        yield directory / "state"
    finally:
        local(directory / "state", "down")
        shutil.rmtree(directory, ignore_errors=True)


def local(state: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "local", "--state", str(state), *arguments],
        cwd=PROJECT,
        env=clean(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_as(role: str, state: Path) -> list[object]:
    """The program above in the shell of somebody with this role, who has no token but the plugin's."""
    done = subprocess.run(
        [
            "sh",
            "-c",
            'eval "$(cat)"; unset MLFLOW_TRACKING_TOKEN; exec "$@"',
            "sh",
            sys.executable,
            "-c",
            _PROGRAM,
        ],
        input=local(state, "env", "--role", role),
        env=clean() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: list[object] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("role", ["contributor", "approver", "admin"])
def test_role_connects_and_logs_under_its_own_name(state: Path, role: str) -> None:
    arn = f"arn:aws:iam::000000000000:role/mlflow-{role}"
    assert run_as(role, state) == [arn, role, [], arn]


def test_viewer_connects_and_cannot_log(state: Path) -> None:
    arn = "arn:aws:iam::000000000000:role/mlflow-viewer"
    assert run_as("viewer", state) == [arn, "viewer", [], "PERMISSION_DENIED"]
