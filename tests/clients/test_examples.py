"""The examples run against the deployment as its users run them, with a contributor's rights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local.state import PROJECT
from tests.clients.installation import LAST_OF_2, OLDEST, TODAY

if TYPE_CHECKING:
    from tests.clients.conftest import RunScript

_QUICKSTART = PROJECT / "examples" / "quickstart" / "quickstart.py"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_quickstart_runs_with_nothing_installed_but_the_client(run_script: RunScript) -> None:
    done = run_script(_QUICKSTART, version=TODAY)
    assert done.returncode == 0, done.stderr
    assert "came back and predicts the same" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_quickstart_connects_without_a_token_where_the_plugin_is_installed(
    today_environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(_QUICKSTART)],
        env={name: value for name, value in today_environment.items() if name != "MLFLOW_TRACKING_TOKEN"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "your role  contributor" in done.stdout
    assert "came back and predicts the same" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_credit_risk_registers_one_version_and_writes_nothing_here(
    today_environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "examples.credit_risk.train",
            *("--strategy", "random-forest", "--register", "trained-by-a-script", "--json", "--quiet"),
        ],
        env=today_environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert (len(printed["children"]), printed["version"]) == (12, "1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_quickstart_without_a_server_says_what_to_set(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(_QUICKSTART)],
        env={"PATH": "", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "MLFLOW_TRACKING_URI" in done.stderr


def test_documented_versions_are_the_tested_ones() -> None:
    text = (PROJECT / "docs" / "connect.md").read_text()
    missing = [version for version in (OLDEST, LAST_OF_2, TODAY) if version not in text]
    assert not missing, (
        f"docs/connect.md does not name the tested clients {missing}: measure and document them"
    )


def test_documented_lines_are_those_of_the_quickstart() -> None:
    document = (PROJECT / "docs" / "connect.md").read_text()
    block = document.split("## 3. Train")[1].split("```python\n")[1].split("```")[0]
    program = [line.strip() for line in _QUICKSTART.read_text().splitlines()]
    lines = [line.strip() for line in block.splitlines() if line]
    start = program.index(lines[0])
    assert [line for line in program[start:] if line][: len(lines)] == lines
