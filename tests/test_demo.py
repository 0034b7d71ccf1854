"""`make demo`'s path, end to end: synthesize, deploy, migrate, serve, prove with the smoke client."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from client_smoke.steps import STEPS
from local.environment import clean
from local.state import PROJECT, State

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks at processes through /proc"
)


@dataclass
class Deployed:
    """A deployment of its own, beside any that a developer runs, and what was seen while it was proven."""

    state: State
    client: Mapping[str, str]
    arguments: dict[int, str] = field(default_factory=dict)

    def look_at_processes(self) -> None:
        """Remember every argument list that can be seen on this machine, as `ps` would show it."""
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit():
                try:
                    arguments = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                self.arguments[int(directory.name)] = arguments

    def servers(self) -> list[int]:
        """The processes of the deployed server."""
        self.look_at_processes()
        address = State.read(self.state.endpoints)["server_url"].removeprefix("http://")
        port = address.rsplit(":", 1)[1]
        return [
            pid
            for pid, seen in self.arguments.items()
            if "-m mlflow_aws_server" in seen and f"--port {port} " in seen
        ]


def _local(state: State, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local", "--state", str(state.directory), command],
        cwd=PROJECT,
        env=clean(),
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    state = State(tmp_path_factory.mktemp("platform"))
    up = _local(state, "up")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        exported = _local(state, "env").stdout
        yield Deployed(state, dict(re.findall(r"^export (\w+)=(\S+)$", exported, re.MULTILINE)))
    finally:
        down = _local(state, "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert not state.endpoints.exists()


@pytest.fixture(scope="module")
def proof(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The smoke client's report on the deployment, made while its processes are watched."""
    report, junit = (tmp_path_factory.mktemp("proof") / name for name in ("report.json", "junit.xml"))
    smoke = subprocess.Popen(
        [sys.executable, "-m", "client_smoke", "--json", str(report), "--junit", str(junit)],
        cwd=PROJECT,
        env={**clean(), **deployed.client},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while True:
        deployed.look_at_processes()
        try:
            output, _ = smoke.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            continue
    assert smoke.returncode == 0, output
    assert ElementTree.parse(junit).getroot().get("failures", "0") == "0"
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def test_smoke_client_finds_every_promise_kept(proof: dict[str, Any]) -> None:
    assert [step["name"] for step in proof["steps"]][: len(STEPS)] == [step.name for step in STEPS]
    assert {step["status"] for step in proof["steps"]} == {"passed"}


def test_no_argument_of_any_process_holds_a_credential(deployed: Deployed, proof: dict[str, Any]) -> None:
    root = json.loads(deployed.state.root.read_text())
    secrets = [value for name, value in deployed.client.items() if "KEY" in name or "TOKEN" in name] + [
        value for value in root.values() if isinstance(value, str) and len(value) > 15
    ]
    assert len(secrets) >= 4
    assert deployed.servers()
    for arguments in deployed.arguments.values():
        assert not [secret for secret in secrets if secret in arguments], arguments
        assert not re.search(
            r"X-Amz-(Signature|Security-Token)=|postgresql\S*://[^/\s:]+:[^@\s]+@", arguments
        )


def test_server_has_no_key_and_no_password_in_its_environment(deployed: Deployed) -> None:
    servers = deployed.servers()
    assert servers
    for pid in servers:
        environment = dict(
            entry.split("=", 1)
            for entry in Path(f"/proc/{pid}/environ").read_text().split("\0")
            if "=" in entry
        )
        assert environment["MLFLOW_AWS_DATABASE_USER"] == "mlflow_server"
        assert not [
            name for name in environment if re.search("ACCESS_KEY|SESSION_TOKEN|PASSWORD|SECRET", name)
        ]
        assert "X-Amz-Signature" not in " ".join(environment.values())


def test_what_is_written_down_is_closed_to_other_users(deployed: Deployed) -> None:
    assert deployed.state.endpoints.stat().st_mode & 0o077 == 0
    assert deployed.state.root.stat().st_mode & 0o077 == 0


def test_stock_client_connects_with_nothing_but_the_exported_variables(deployed: Deployed) -> None:
    code = (
        "import mlflow, boto3;"
        "assert mlflow.search_experiments()[0].artifact_location.startswith('s3://');"
        "print(boto3.client('sts').get_caller_identity()['Arn'])"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], **deployed.client},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert seen.returncode == 0, seen.stderr
    assert ":assumed-role/" in seen.stdout


def test_second_up_says_that_it_runs_already(deployed: Deployed) -> None:
    again = _local(deployed.state, "up")
    assert (again.returncode, "already running" in again.stderr) == (0, True)
