"""The image is built from the Dockerfile and runs with the privileges, and the memory, of its task."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.image.conftest import MEMORY_MIB, Built, Running
from tests.server.conftest import request

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]


def _status(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(re.findall(r"^(\w+):\s+(.*)$", text, re.MULTILINE))


def test_it_is_migrated_ready_and_healthy(task: Running) -> None:
    assert request(task.port, "GET", "/health", role=None)[0] == 200
    assert request(task.port, "GET", "/ready", role=None)[0] == 200
    assert task.execute("python", "-m", "mlflow_aws_server", "healthcheck") == 0


def test_it_runs_python_3_13_as_nobody_with_no_capability(task: Running) -> None:
    status = _status(task.state()["Pid"])
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    version = task.engine.docker("exec", task.container, "python", "--version").stdout
    assert version.startswith("Python 3.13.")


def test_nothing_but_tmp_can_be_written(task: Running) -> None:
    for path in ("/opt/mlflow/x", "/etc/x", "/var/tmp/x", "/x"):
        assert task.execute("touch", path) != 0, path
    assert task.execute("touch", "/tmp/x") == 0


def test_what_only_builds_is_not_in_it(task: Running) -> None:
    for module in ("pip", "hatchling"):
        assert task.execute("python", "-c", f"import {module}") != 0, module


def test_it_trusts_the_vendored_authorities_of_rds(task: Running) -> None:
    assert task.execute("grep", "-c", "BEGIN CERTIFICATE", "/etc/ssl/rds/global-bundle.pem") == 0


def test_a_run_is_logged_through_it(task: Running) -> None:
    def call(method: str, path: str, body: object = None) -> Any:
        status, answer = request(task.port, method, f"/api/2.0/mlflow/{path}", body, role="contributor")
        assert status == 200, answer
        return json.loads(answer)

    made = call("POST", "runs/create", {"experiment_id": "0", "start_time": 1})
    run = made["run"]["info"]["run_id"]
    points = [{"key": "loss", "value": 1 / (n + 1), "step": n, "timestamp": n} for n in range(1000)]
    call("POST", "runs/log-batch", {"run_id": run, "metrics": points})
    assert call("GET", f"runs/get?run_id={run}")["run"]["data"]["metrics"][0]["value"] == 1 / 1000
    history = call("GET", f"metrics/get-history?run_id={run}&metric_key=loss")["metrics"]
    assert len(history) == 1000


def test_its_memory_is_within_that_of_the_task(task: Running) -> None:
    used = task.engine.docker("stats", "--no-stream", "--format={{.MemUsage}}", task.container).stdout
    number, unit = re.match(r"([\d.]+)(\wiB)", used).groups()  # type: ignore[union-attr]
    assert unit == "MiB"
    assert float(number) < 0.8 * MEMORY_MIB
    assert task.state()["OOMKilled"] is False


def test_its_properties_are_those_of_the_document(image: Built, task: Running) -> None:
    found = image.inspect()
    base = image.engine.docker("image", "inspect", "--format={{.Size}}", "base:trixie").stdout
    mib = 2**20
    added = (found["Size"] - int(base)) / mib
    assert added < 500
    used = task.engine.docker("stats", "--no-stream", "--format={{.MemUsage}}", task.container).stdout
    rows = {
        "Base": f"Debian trixie by debootstrap, {int(base) / mib:.0f} MB",
        "What the Dockerfile adds": f"{added:.0f} MB",
        "Layers": str(len(found["RootFS"]["Layers"])),
        "Build, without the base": f"{image.seconds:.0f} s",
        "`serve` answers `/ready` after": f"{task.seconds:.1f} s",
        "Memory at rest": used.split(" /")[0].replace("MiB", " MB"),
        "User": found["Config"]["User"],
        "Command": " ".join([*found["Config"]["Entrypoint"], *found["Config"]["Cmd"]]),
        "Processor": f"{found['Architecture']}, {os.cpu_count()} cores ({platform.machine()})",
    }
    if destination := os.environ.get("IMAGE_REPORT"):
        document = Path(destination)
        before, _ = document.read_text().split("| Property |")
        today = datetime.datetime.now(datetime.UTC).date()
        table = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
        before = re.sub(r"on \d{4}-\d\d-\d\d", f"on {today}", before)
        document.write_text(f"{before}| Property | Measured |\n|---|---|\n{table}")


def test_it_ends_in_order_when_it_is_told_to(task: Running) -> None:
    began = time.monotonic()
    task.engine.docker("stop", "--time=60", task.container)
    # The server ends by the signal once its requests are done; 137 would mean that it was killed.
    assert task.state()["ExitCode"] in (0, 143)
    assert time.monotonic() - began < 45
