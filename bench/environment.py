"""Metadata of results: machine, time and versions."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).resolve().parent.parent


def describe(*, plan: Mapping[str, Any], seconds: float, postgresql: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a run that took `seconds`; `postgresql` holds its version and settings."""
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "seconds": round(seconds),
        "machine": machine(),
        "commit": _commit(),
        "versions": {
            "postgresql": postgresql.get("server_version", "unknown"),
            "python": platform.python_version(),
            **{name: version(name) for name in ("mlflow", "uvicorn", "asyncpg", "uvloop", "httptools")},
        },
        "postgresql": dict(postgresql),
        "plan": dict(plan),
    }


def machine() -> dict[str, Any]:
    """A short description of the machine, without its name."""
    model = platform.processor() or platform.machine()
    memory = 0
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def _commit() -> str:
    found = subprocess.run(
        ["git", "-C", str(_PROJECT), "rev-parse", "--short=10", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
