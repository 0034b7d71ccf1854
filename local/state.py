"""The platform's files, and which process runs it now."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.parts.processes import Ledger, Process, moment_of_birth

PROJECT = Path(__file__).resolve().parent.parent
SUPERVISOR_LOG = "platform.log"
VENVS = PROJECT / ".local" / "venvs"


class AlreadyRunningError(RuntimeError):
    """Another process runs the platform in this directory."""


@dataclass(frozen=True)
class State:
    """The files of one platform, under one directory (`.local` of the project)."""

    directory: Path = PROJECT / ".local"

    @property
    def run(self) -> Path:
        """What lives as long as one run: settings, credentials, status."""
        return self.directory / "run"

    @property
    def logs(self) -> Path:
        """Logs of the latest run."""
        return self.directory / "logs"

    @property
    def authority(self) -> Path:
        """The local certificate authority and what it issued."""
        return self.directory / "ca"

    @property
    def endpoints(self) -> Path:
        """The addresses of everything, for programs."""
        return self.directory / "endpoints.json"

    @property
    def users(self) -> Path:
        """Names and passwords of this run's people (mode 0600)."""
        return self.directory / "users.json"

    @property
    def ports(self) -> Path:
        """Ports of the latest run, to use again."""
        return self.directory / "ports.json"

    @property
    def root(self) -> Path:
        """The emulated account's root credentials of this run (mode 0600)."""
        return self.run / "root.json"

    @property
    def ledger(self) -> Ledger:
        """The processes of this platform."""
        return Ledger(self.run / "processes")

    def prepare(self) -> None:
        """Create the directories, closed to other users.

        Raises:
            OSError: they cannot be created.
        """
        # Stays open: when we are root, PostgreSQL runs below it as another user.
        if not self.directory.exists():
            self.directory.mkdir(parents=True)
            self.directory.chmod(0o711)
        for directory in (self.run, self.logs, self.authority):
            directory.mkdir(mode=0o700, exist_ok=True)
            directory.chmod(0o700)

    def write(self, file: Path, values: Mapping[str, Any]) -> None:
        """Write a JSON file atomically, readable only by its owner."""
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            json.dump(values, opened, indent=1)
        temporary.replace(file)

    @staticmethod
    def read(file: Path) -> dict[str, Any]:
        """Read a JSON file; empty if it is missing or damaged."""
        try:
            values = json.loads(file.read_text())
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of the process that runs the platform; it ends with the process, however that ends.

        Raises:
            AlreadyRunningError: another process holds it.
        """
        self.prepare()
        with (self.run / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise AlreadyRunningError from None
            born = moment_of_birth(os.getpid())
            self.write(self.run / "supervisor.json", {"pid": os.getpid(), "began": born})
            try:
                yield
            finally:
                (self.run / "supervisor.json").unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Whether some process runs the platform now."""
        try:
            with (self.run / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def supervisor(self) -> Process | None:
        """The process that runs the platform, if it is alive."""
        noted = self.read(self.run / "supervisor.json")
        if not noted.get("pid") or not noted.get("began"):
            return None
        process = Process(int(noted["pid"]), str(noted["began"]), "supervisor")
        return process if process.is_alive() else None

    def clean(self) -> None:
        """Remove what a run leaves behind; logs, certificates and the synthesized stacks stay."""
        postgres = self.read(self.run / "postgres.json").get("directory")
        if postgres:
            shutil.rmtree(postgres, ignore_errors=True)
            if not Path(postgres).is_relative_to(self.directory):
                with contextlib.suppress(OSError):
                    Path(postgres).parent.rmdir()
        self.endpoints.unlink(missing_ok=True)
        self.users.unlink(missing_ok=True)
        for entry in self.run.glob("*"):
            if entry.name in ("lock", "supervisor.json"):
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
