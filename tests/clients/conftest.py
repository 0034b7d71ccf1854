"""The environments of the deployment's users, and how scripts run in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from local.state import PROJECT
from tests.clients.installation import client
from tests.laptop import Laptop

PATTERNS = Path(__file__).parent / "patterns"
Environment = Callable[[str], dict[str, str]]
RunScript = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def environment(laptop: Laptop, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The variables of a user's shell with its own home, fresh at each call."""
    home = tmp_path_factory.mktemp("home")

    def variables(role: str) -> dict[str, str]:
        return laptop.environment(role, HOME=str(home))

    return variables


@pytest.fixture(scope="session")
def run_script(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> RunScript:
    """Run a script with a client, in an empty folder, with only a role's environment variables."""

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
