from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import run as running
from bench.records import load
from bench.run import QUICK, Plan, chosen
from bench.scenarios import SCENARIOS


def test_help_says_what_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.main(["--help"])
    assert "loopback" in capsys.readouterr().out


def test_an_unknown_scenario_is_refused_before_anything_is_started(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--only", "log-bath"])
    assert "log-bath" in capsys.readouterr().err


def test_an_invalid_url_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--url", "mlflow.example.com"])
    assert "mlflow.example.com" in capsys.readouterr().err


def test_a_report_without_results_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["report", "--results", str(tmp_path)])
    assert "latest.json" in capsys.readouterr().err


def test_an_interrupted_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupted)
    assert command.main(["--quick", "--results", str(tmp_path)]) == 130
    assert list(tmp_path.iterdir()) == []


def test_the_whole_plan_has_every_scenario_and_the_concurrencies_compared() -> None:
    assert chosen(Plan()) == list(SCENARIOS)
    assert set(Plan().rounds) == {1, 16, 64}
    assert 2_000 in Plan().training_runs
    assert (Plan().slow_clients, Plan().sizes.small, Plan().sizes.large) == (500, 5_000, 100_000)


def test_the_quick_plan_has_every_scenario_too() -> None:
    assert chosen(QUICK) == list(SCENARIOS)


def test_results_that_are_kept_are_readable() -> None:
    for name in ("latest", "growth"):
        path = command.RESULTS / f"{name}.json"
        if path.exists():
            results, metadata = load(path)
            assert results.records
            assert {"date", "machine", "versions", "plan"} <= metadata.keys()


@pytest.mark.slow
def test_two_benchmarks_do_not_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "LOCAL", tmp_path)
    with (tmp_path / "bench.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for arguments in (["--quick"], ["--readers"], ["--imports"]):
            assert command.main([*arguments, "--results", str(tmp_path)]) == 1
            assert "bench.lock" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_training_and_pressure_can_be_chosen_like_scenarios() -> None:
    plan = command._plan(command._parser().parse_args(["--only", "get-run,training-50,slow-clients"]))
    assert (plan.scenarios, plan.training_runs, plan.pressure) == (("get-run",), (50,), ("slow-clients",))


def test_the_gate_is_measured_in_a_whole_run_and_when_it_is_chosen() -> None:
    parse = command._parser().parse_args
    assert command._plan(parse([])).gate
    assert not command._plan(parse(["--only", "get-run"])).gate
    plan = command._plan(parse(["--only", "gate"]))
    assert (plan.gate, plan.scenarios) == (True, ())


def test_only_a_whole_run_becomes_the_results_that_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = {
        "date": "2026-01-02",
        "seconds": 1,
        "machine": {"processor": "Some CPU", "cores": 2, "memory_gb": 8.0},
        "versions": {"mlflow": "3.17.2", "postgresql": "18.4"},
    }
    monkeypatch.setattr(command, "run", lambda *_, **__: ([], metadata))
    assert command.main(["--quick", "--results", str(tmp_path)]) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["partial"]
    assert command.main(["--results", str(tmp_path)]) == 0
    assert (tmp_path / "latest.json").exists()
