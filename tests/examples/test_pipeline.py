"""What passes from step to step, and from job to job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from model_lifecycle.policy import LoadedPolicy

from examples.credit_risk import pipeline


def test_the_pipelines_policy_is_valid_and_for_its_model() -> None:
    loaded = LoadedPolicy.load(pipeline.POLICY)
    for target in ("staging", "production"):
        assert loaded.transition(target, model=pipeline.MODEL).metrics


def test_a_step_without_a_candidate_says_what_to_run_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline.main(["register", "--state", str(tmp_path / "none.json")]) == 1
    assert "run the step train first" in capsys.readouterr().err


def test_an_unknown_step_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        pipeline.main(["deploy"])
    assert ended.value.code == 2
    assert "promote-production" in capsys.readouterr().err


def test_a_step_hands_its_state_on_to_the_next_step_and_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    monkeypatch.setattr("model_lifecycle.cli.main", lambda _arguments: 0)
    monkeypatch.setenv("PIPELINE_CANDIDATE", json.dumps({"model": "credit-risk", "version": "7"}))
    assert pipeline.main(["promote-staging", "--state", str(tmp_path / "state.json")]) == 0
    assert json.loads((tmp_path / "state.json").read_text())["version"] == "7"
    assert json.loads(output.read_text().removeprefix("candidate="))["version"] == "7"


def test_a_refused_step_ends_with_the_commands_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_lifecycle.cli.main", lambda _arguments: 3)
    monkeypatch.setenv("PIPELINE_CANDIDATE", json.dumps({"model": "credit-risk", "version": "7"}))
    assert pipeline.main(["promote-staging", "--state", str(tmp_path / "state.json")]) == 3
