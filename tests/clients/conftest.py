"""A whole deployment, as `make up` starts it, and its users' environments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.environment import clean
from local.state import PROJECT, State
from tests.clients.installation import client

PATTERNS = Path(__file__).parent / "patterns"
Environment = Callable[[str], dict[str, str]]
RunScript = Callable[..., subprocess.CompletedProcess[str]]


def _local(state: State, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local", "--state", str(state.directory), *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


@pytest.fixture(scope="session")
def platform() -> Iterator[State]:
    # Open to the user that PostgreSQL runs as when we are root.
    directory = Path(tempfile.mkdtemp(prefix="mlflow-aws-clients-"))
    directory.chmod(0o711)
    state = State(directory / "state")
    try:
        started = _local(state, "up", timeout=240)
        assert started.returncode == 0, started.stdout + started.stderr
        yield state
    finally:
        _local(state, "down", timeout=120)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def environment(platform: State, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The variables of a shell that has evaluated `make -s env ROLE=…`, fresh at each call."""
    home = tmp_path_factory.mktemp("home")

    def variables(role: str) -> dict[str, str]:
        lines = _local(platform, "env", "--role", role)
        assert lines.returncode == 0, lines.stderr
        printed = subprocess.run(
            ["sh", "-c", 'eval "$1"; env -0', "sh", lines.stdout],
            env=clean(HOME=str(home)),
            capture_output=True,
            check=True,
        ).stdout
        return dict(pair.split("=", 1) for pair in printed.decode().split("\0") if pair)

    return variables


@pytest.fixture(scope="session")
def run_script(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> RunScript:
    """Run a script with a client, in an empty folder, with nothing but a role's environment variables."""

    def run(
        script: Path, *arguments: str, version: str, role: str = "contributor", **more: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(client(version)), str(script), *arguments],
            env={**environment(role), **more},
            cwd=tmp_path_factory.mktemp("work"),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def today_environment(environment: Environment) -> dict[str, str]:
    """A contributor's variables with this repository on the path, for the examples."""
    return {**environment("contributor"), "PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
