"""Which processes are ended, and above all which are not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local.parts.processes import Ledger, moment_of_birth
from local.state import PROJECT

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str = "import time; print(flush=True); time.sleep(60)") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "processes")


def test_recorded_processes_are_ended(ledger: Ledger, start: Start) -> None:
    process = start()
    ledger.add(process.pid, "mine")
    assert [each.what for each in ledger.end_all()] == ["mine"]
    assert moment_of_birth(process.pid) is None
    assert ledger.alive() == []


def test_others_are_left_alone(ledger: Ledger, start: Start) -> None:
    mine, other = start(), start()
    ledger.add(mine.pid, "mine")
    ledger.end_all()
    assert moment_of_birth(other.pid) is not None


def test_a_process_with_a_reused_id_is_left_alone(ledger: Ledger, start: Start, tmp_path: Path) -> None:
    stranger = start()
    ledger.add(stranger.pid, "mine, long ago")
    record = tmp_path / "processes" / f"{stranger.pid}.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "began": "another boot/123"}))
    assert ledger.end_all() == []
    assert moment_of_birth(stranger.pid) is not None
    assert not record.exists()


def test_one_process_can_be_ended_among_several(ledger: Ledger, start: Start) -> None:
    first, second = start(), start()
    ledger.add(first.pid, "first")
    ledger.add(second.pid, "second")
    ledger.end(first.pid)
    assert [each.what for each in ledger.alive()] == ["second"]


def test_a_process_that_ignores_its_signal_is_killed(ledger: Ledger, start: Start) -> None:
    deaf = start("import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)")
    ledger.add(deaf.pid, "deaf", patience=0.2)
    ledger.end_all()
    assert moment_of_birth(deaf.pid) is None


def test_what_a_process_started_ends_with_it(ledger: Ledger, start: Start, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    parent = start(
        "import subprocess, time, pathlib\n"
        f"pathlib.Path({str(note)!r}).write_text(str(subprocess.Popen(['sleep', '60']).pid))\n"
        "print(flush=True); time.sleep(60)"
    )
    ledger.add(parent.pid, "parent")
    ledger.end_all()
    child = int(note.read_text())
    deadline = time.monotonic() + 10
    while moment_of_birth(child) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_chosen_signal_is_sent(ledger: Ledger, start: Start, tmp_path: Path) -> None:
    note = tmp_path / "heard"
    process = start(
        "import signal, sys, time, pathlib\n"
        f"signal.signal(signal.SIGINT, lambda *_: (pathlib.Path({str(note)!r}).touch(), sys.exit()))\n"
        "print(flush=True); time.sleep(60)"
    )
    ledger.add(process.pid, "PostgreSQL", signal_number=signal.SIGINT)
    ledger.end_all()
    assert note.exists()


def test_a_process_that_has_ended_is_not_recorded(ledger: Ledger, start: Start) -> None:
    process = start("print(flush=True)")
    process.wait()
    assert ledger.add(process.pid, "gone") is None


def test_a_tracked_child_ends_with_its_block(ledger: Ledger) -> None:
    child = subprocess.Popen(["sleep", "60"])
    with ledger.tracked(child, "mine"):
        assert [each.what for each in ledger.alive()] == ["mine"]
    assert child.poll() is not None
    assert ledger.alive() == []


def test_damaged_records_are_dropped(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "1.json").write_text("{not json")
    (tmp_path / "processes" / "2.json").write_text('{"pid": 2}')
    assert ledger.end_all() == []
    assert list((tmp_path / "processes").iterdir()) == []


def test_the_guard_ends_everything_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "from pathlib import Path\n"
            "from local.state import State\n"
            f"state = State(Path({str(tmp_path)!r}))\n"
            "state.prepare(); state.endpoints.touch()\n"
            "guard = subprocess.Popen([sys.executable, '-m', 'local.parts.guard',"
            "                          str(state.ledger.directory), str(state.endpoints)],\n"
            "                         stdin=subprocess.PIPE, start_new_session=True)\n"
            "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
            "state.ledger.add(child.pid, 'child')\n"
            "print(child.pid, guard.pid, flush=True)\n"
            "time.sleep(60)",
        ],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
    )
    assert supervisor.stdout is not None
    child, guard = (int(each) for each in supervisor.stdout.readline().split())
    born = moment_of_birth(guard)
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    supervisor.stdout.close()
    deadline = time.monotonic() + 20
    while moment_of_birth(child) is not None or moment_of_birth(guard) == born:
        assert time.monotonic() < deadline, "the guard or the child still runs after 20 seconds"
        time.sleep(0.05)
    assert not (tmp_path / "endpoints.json").exists()
