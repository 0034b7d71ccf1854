"""`python -m local` when nothing runs, or another process runs the platform."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.__main__ import main
from local.parts.processes import moment_of_birth
from local.state import PROJECT, State


def command(tmp_path: Path, *arguments: str) -> int:
    return main(["--state", str(tmp_path), *arguments])


def test_down_with_nothing_running_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "down") == 0
    assert capsys.readouterr().out == "nothing was running\n"


def test_env_with_nothing_running_prints_no_line_to_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "env") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "make up" in captured.err


def test_status_with_nothing_running_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "status") == 2
    assert "not running" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["up", "demo"])
def test_a_second_up_says_where_the_first_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    state = State(tmp_path)
    with state.held():
        state.write(state.endpoints, {"tracking_url": "https://localhost:8443"})
        assert command(tmp_path, what) == 0
    assert "already running at https://localhost:8443; `make down` stops it" in capsys.readouterr().err


def test_endpoints_of_a_killed_run_are_not_taken_for_a_running_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = State(tmp_path)
    state.prepare()
    state.write(state.endpoints, {"tracking_url": "https://localhost:8443"})
    assert command(tmp_path, "env") == 2
    assert capsys.readouterr().out == ""


def test_down_ends_what_a_killed_run_left_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = State(tmp_path)
    state.prepare()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as left:
        state.ledger.add(left.pid, "left over")
        assert command(tmp_path, "down") == 0
        assert moment_of_birth(left.pid) is None
    assert "ended what a killed run left behind: left over" in capsys.readouterr().out


def test_without_a_command_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "demo" in capsys.readouterr().err


def test_an_interrupted_start_leaves_nothing_behind(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as busy:
        # Even with one of its ports taken.
        directory.mkdir()
        (directory / "ports.json").write_text(json.dumps({"aws": busy.getsockname()[1]}))
        process = subprocess.Popen(
            [sys.executable, "-m", "local", "--state", str(directory), "demo"],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        ledger = State(directory).ledger
        deadline = time.monotonic() + 60
        while len(ledger.alive()) < 2:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "fewer than two processes after 60 seconds"
            time.sleep(0.05)
        started = ledger.alive()
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert not [each for each in started if each.is_alive()]
    assert not State(directory).is_held()
    assert not (directory / "postgres").exists()
    assert "interrupted; everything that was started has ended" in said
