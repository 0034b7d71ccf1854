"""The processes of a platform, identified so that only they are ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Process:
    """A process, identified by its id and start time, so that a reused id is not mistaken for it."""

    pid: int
    began: str
    what: str
    # Ends it in an orderly way.
    signal: int = signal.SIGTERM
    # Seconds it may take to end before it is killed.
    patience: float = 10.0

    def is_alive(self) -> bool:
        """Whether this very process still runs; a zombie does not count."""
        return moment_of_birth(self.pid) == self.began


class Ledger:
    """The processes that were started, one file each, in a directory that outlives who started them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(
        self, pid: int, what: str, *, signal_number: int = signal.SIGTERM, patience: float = 10.0
    ) -> Process | None:
        """Record a child; None if it has already ended."""
        began = moment_of_birth(pid)
        if began is None:
            return None
        process = Process(pid, began, what, signal_number, patience)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._file(pid).with_suffix(".new")
        temporary.write_text(json.dumps(asdict(process)))
        temporary.replace(self._file(pid))
        return process

    def remove(self, pid: int) -> None:
        """Forget a process that has ended."""
        self._file(pid).unlink(missing_ok=True)

    @contextlib.contextmanager
    def tracked(self, child: subprocess.Popen[Any], what: str) -> Iterator[None]:
        """Record a child while the block lasts; a child that still runs at its end is terminated."""
        self.add(child.pid, what)
        try:
            yield
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
            self.remove(child.pid)

    def alive(self) -> list[Process]:
        """The recorded processes that still run; other records are removed, unreadable ones too."""
        found = []
        for file in sorted(self.directory.glob("*.json")):
            try:
                process = Process(**json.loads(file.read_text()))
            except (OSError, ValueError, TypeError):
                process = None
            if process is not None and process.is_alive():
                found.append(process)
            else:
                file.unlink(missing_ok=True)
        return found

    def end_all(self) -> list[Process]:
        """End every recorded process and its group, kill those that do not end, and return them all."""
        return self._end(self.alive())

    def end(self, pid: int) -> None:
        """End one recorded process and its group; does nothing if it is not recorded or has ended."""
        self._end([process for process in self.alive() if process.pid == pid])

    def _end(self, processes: list[Process]) -> list[Process]:
        for process in processes:
            _signal(process, process.signal)
        deadline = {process.pid: time.monotonic() + process.patience for process in processes}
        remaining = list(processes)
        while remaining:
            for process in list(remaining):
                _reap(process.pid)
                if not process.is_alive():
                    remaining.remove(process)
                elif time.monotonic() > deadline[process.pid]:
                    _signal(process, signal.SIGKILL)
            time.sleep(_POLL_SECONDS if remaining else 0)
        for process in processes:
            # Nothing that a process left in its group may outlive it.
            _kill_group(process)
            self.remove(process.pid)
        return processes

    def _file(self, pid: int) -> Path:
        return self.directory / f"{pid}.json"


def moment_of_birth(pid: int) -> str | None:
    """When the process with this id started, only for comparison; None if there is no such process."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError):
            return None
        # Fields 3 (state) and 22 (starttime, in ticks since boot) of proc(5).
        return None if fields[0] in ("Z", "X") else f"{boot}/{fields[19]}"
    shown = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if len(shown) < 2 or shown[0].startswith("Z") else shown[1].strip()


def _signal(process: Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if number == signal.SIGKILL:
            _kill_group(process)
        elif process.is_alive():
            os.kill(process.pid, number)


def _kill_group(process: Process) -> None:
    """Kill what is left of the group that a process leads or led.

    While a group has members, no new process gets its id. So if no process has this id, a group that has it
    is what this process left behind.
    """
    if moment_of_birth(process.pid) in (process.began, None):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
