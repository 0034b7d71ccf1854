"""The gate alone: quick to import, and nothing that a fork must not share."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_gate_brings_neither_mlflow_nor_a_thread() -> None:
    asked = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, threading, mlflow_aws_server.identity, mlflow_aws_server.settings;"
            "print('mlflow' in sys.modules, threading.active_count())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.split() == ["False", "1"]
