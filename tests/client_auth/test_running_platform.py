"""The whole way once: the emulator's STS, the load balancer, the gate, S3 with IAM enforced."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.laptop import Laptop

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


def run_as(role: str, laptop: Laptop) -> list[object]:
    """The program above in the shell of somebody with this role, who has no token but the plugin's."""
    environment = laptop.environment(role)
    del environment["MLFLOW_TRACKING_TOKEN"]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: list[object] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("role", ["contributor", "approver", "admin"])
def test_role_connects_and_logs_under_its_own_name(laptop: Laptop, role: str) -> None:
    arn = f"arn:aws:iam::000000000000:role/mlflow-{role}"
    assert run_as(role, laptop) == [arn, role, [], arn]


@pytest.mark.parametrize("role", ["auditor", "viewer"])
def test_role_that_only_reads_connects_and_cannot_log(laptop: Laptop, role: str) -> None:
    arn = f"arn:aws:iam::000000000000:role/mlflow-{role}"
    assert run_as(role, laptop) == [arn, role, [], "PERMISSION_DENIED"]
