"""A laptop's AWS with the deployment on it, as `make up` starts it, and its users' shells."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local.environment import clean
from local.state import PROJECT, State

_UP_SECONDS = 600


@dataclass(frozen=True)
class Laptop:
    """A running platform, driven only by the commands that users have."""

    state: State

    def local(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m local`, which must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "local", "--state", str(self.state.directory), *arguments],
            cwd=PROJECT,
            env=clean(),
            capture_output=True,
            text=True,
            timeout=_UP_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def environment(self, role: str, **before: str) -> dict[str, str]:
        """The variables of a shell, with `before` in it, that has evaluated `make -s env ROLE=…`."""
        printed = subprocess.run(
            ["sh", "-c", 'eval "$(cat)"; env -0'],
            input=self.local("env", "--role", role).stdout.encode(),
            env={**clean(), **before},
            capture_output=True,
            check=True,
        ).stdout
        return dict(pair.split("=", 1) for pair in printed.decode().split("\0") if pair)


@contextlib.contextmanager
def running_laptop() -> Iterator[Laptop]:
    """Start a platform with its own state, and stop it."""
    directory = Path(tempfile.mkdtemp(prefix="mlflow-aws-up-"))
    # Open to the user that PostgreSQL runs as when we are root.
    directory.chmod(0o711)
    laptop = Laptop(State(directory / "state"))
    try:
        laptop.local("up")
        yield laptop
    finally:
        laptop.local("down")
        shutil.rmtree(directory, ignore_errors=True)
