"""Python environments with one MLflow client each, installed on demand from hash-locked files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from local.state import PROJECT, VENVS

REQUIREMENTS = Path(__file__).parent / "requirements"
OLDEST, LAST_OF_2, TODAY = VERSIONS = ("2.11.3", "2.22.5", version("mlflow"))
_UV = Path(sys.prefix) / "bin" / "uv"


def locked(name: str) -> Path:
    """The lock file of this name; that of today's client is named without its version."""
    return REQUIREMENTS / f"{'mlflow-current' if name == f'mlflow-{TODAY}' else name}.txt"


def client(version: str) -> Path:
    """Python with this client and its libraries, `.local/venvs/client-VERSION`; created if missing."""
    return installed(f"client-{version}", locked(f"mlflow-{version}")) / "bin" / "python"


def installed(name: str, lock: Path) -> Path:
    """A Python environment with what this lock file holds, `.local/venvs/NAME`; created if missing."""
    environment = VENVS / name
    if _is_outdated(environment, lock):
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(environment))
        _install(lock, "--python", str(environment / "bin" / "python"), into=environment)
    return environment


def overlay(name: str, python: Path) -> Path:
    """A folder for PYTHONPATH with what this lock file holds, without its dependencies."""
    folder = VENVS / f"overlay-{name}"
    if _is_outdated(folder, locked(name)):
        _install(locked(name), "--no-deps", "--python", str(python), "--target", str(folder), into=folder)
    return folder


def _install(lock: Path, *options: str, into: Path) -> None:
    _uv("pip", "install", "--quiet", "--require-hashes", *options, "-r", str(lock))
    _stamp(into).write_text(_digest(lock))


def _is_outdated(folder: Path, lock: Path) -> bool:
    stamp = _stamp(folder)
    return not stamp.is_file() or stamp.read_text() != _digest(lock)


def _stamp(folder: Path) -> Path:
    return folder / ".locked"


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [str(_UV), *arguments], cwd=PROJECT, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, f"uv {' '.join(arguments)}:\n{done.stderr}"
