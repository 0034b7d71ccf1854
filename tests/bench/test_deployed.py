from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.deployed import BenchTargetError, load_deployed, wire_to
from bench.run import QUICK
from tests.bench.conftest import TinyServer


def test_a_deployment_is_loaded_from_the_command_line_and_left_clean(
    tiny: TinyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    arguments = ["--url", tiny.url, "--quick", "--seconds", "0.05", "--results", str(tmp_path)]
    assert main([*arguments, "--only", "log-batch-1,get-run,get-history"]) == 0
    made = json.loads((tmp_path / "deployed.json").read_text())
    assert {(each["scenario"], each["concurrency"], each["system"], each["errors"]) for each in made} == {
        (scenario, concurrency, "deployed", 0)
        for scenario in ("log-batch-1", "get-run", "get-history")
        for concurrency in (1, 16)
    }
    assert all(each["rps"] > 0 for each in made)
    assert len(tiny.deleted) == 1
    assert {body["experiment_id"] for body in tiny.calls("runs/create")} == set(tiny.deleted)
    assert tiny.authorization == {"Bearer a-token"}
    everything = capsys.readouterr()
    assert "a-token" not in everything.out + everything.err + (tmp_path / "deployed.meta.json").read_text()


def test_results_of_this_machine_are_not_overwritten_by_a_deployments(
    tiny: TinyServer, tmp_path: Path
) -> None:
    main(["--url", tiny.url, "--quick", "--seconds", "0.05", "--results", str(tmp_path), "--only", "get-run"])
    assert not (tmp_path / "latest.json").exists()


async def test_training_runs_are_counted_through_the_api(tiny: TinyServer) -> None:
    plan = dataclasses.replace(QUICK, scenarios=(), training_runs=(1,))
    records, _ = await load_deployed(tiny.url, plan, say=lambda _: None)
    assert [(each.scenario, each.more["points_lost"], each.errors) for each in records] == [
        ("training-50", 0, 0)
    ]


async def test_a_refusal_is_reported_with_its_response(tiny: TinyServer) -> None:
    tiny.failures = [(401, {})]
    with pytest.raises(BenchTargetError, match=r"401.*MLFLOW_TRACKING_TOKEN"):
        await load_deployed(tiny.url, QUICK, say=lambda _: None)


def test_no_token_means_no_header() -> None:
    assert wire_to("http://127.0.0.1:1", {}).headers == {}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes started now can be interrupted, also when these tests run in a shell's background, where
    SIGINT is ignored and every child inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_an_interrupted_load_still_deletes_its_experiment(
    tiny: TinyServer, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = ["--url", tiny.url, "--seconds", "60", "--only", "log-metric", "--results", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "bench", *arguments], stderr=subprocess.PIPE, text=True)
    while not tiny.calls("log-metric"):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in said
    assert len(tiny.deleted) == 1
    assert list(tmp_path.iterdir()) == []
