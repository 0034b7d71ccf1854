"""Which process runs the platform, and what it leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from local.state import PROJECT, AlreadyRunningError, State


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


def test_one_directory_has_one_platform(state: State) -> None:
    with state.held():
        code = (
            "import sys; from pathlib import Path; from local.state import State, AlreadyRunningError\n"
            f"state = State(Path({str(state.directory)!r}))\n"
            "assert state.is_held() and state.supervisor() is not None\n"
            "try:\n    with state.held(): pass\nexcept AlreadyRunningError: sys.exit(42)"
        )
        assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 42
    assert not state.is_held()
    assert state.supervisor() is None


def test_the_lock_of_a_killed_process_is_free(state: State) -> None:
    code = (
        "import os, signal; from pathlib import Path; from local.state import State\n"
        f"state = State(Path({str(state.directory)!r}))\n"
        "with state.held(): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False)
    assert (state.run / "supervisor.json").exists()
    assert state.supervisor() is None
    assert not state.is_held()


def test_another_platform_runs_beside_in_another_directory(state: State, tmp_path: Path) -> None:
    with state.held(), State(tmp_path / "other").held():
        pass


def test_holding_twice_is_an_error_also_within_one_process(state: State) -> None:
    with state.held(), pytest.raises(AlreadyRunningError), state.held():
        pass


def test_what_the_platform_writes_is_for_its_owner_only(state: State) -> None:
    state.prepare()
    state.write(state.endpoints, {"a": 1})
    assert state.endpoints.stat().st_mode & 0o077 == 0
    for directory in (state.run, state.logs, state.authority):
        assert directory.stat().st_mode & 0o077 == 0


def test_cleaning_removes_the_run_and_keeps_logs_and_ports(state: State, tmp_path: Path) -> None:
    state.prepare()
    postgres = tmp_path / "postgres"
    postgres.mkdir()
    state.write(state.run / "postgres.json", {"directory": str(postgres)})
    state.write(state.endpoints, {})
    state.write(state.ports, {"aws": 4566})
    (state.run / "emulator").mkdir()
    (state.logs / "emulator.log").touch()
    state.clean()
    assert not postgres.exists()
    assert not state.endpoints.exists()
    assert list(state.run.iterdir()) == []
    assert state.ports.exists()
    assert (state.logs / "emulator.log").exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_a_damaged_file_counts_as_missing(state: State, content: str) -> None:
    state.prepare()
    state.ports.write_text(content)
    assert State.read(state.ports) == {}
