"""The whole life of a model, as `make demo-lifecycle` shows it: real server, tokens, S3 versions and IAM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from client_smoke.verdict import StepFailed
from examples.credit_risk.demo import Demo, play
from local.environment import clean
from local.parts.processes import Ledger
from tests.client_smoke.conftest import Deployment, account, authority, certificate, deployment, identity

__all__ = ["account", "authority", "certificate", "deployment", "identity"]


def _demo(tmp_path: Path) -> Demo:
    return Demo(lambda _role: clean(), tmp_path / "lifecycle", Ledger(tmp_path / "processes").tracked)


def test_the_demo_stops_at_the_first_step_that_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def broken(demo: Demo) -> str:
        tried.append("broken")
        demo.run("viewer", "-c", "import sys; sys.exit('no such model')")
        return ""

    def never(_demo: Demo) -> str:
        tried.append("never")
        return ""

    monkeypatch.setattr("examples.credit_risk.demo._STEPS", (("this holds", broken), ("this too", never)))
    assert play(_demo(tmp_path), url="https://localhost") == 1
    assert tried == ["broken"]
    assert "no such model" in capsys.readouterr().out


def test_a_step_that_should_be_refused_and_is_not_fails_the_step(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="ended with 0, not 4"):
        _demo(tmp_path).run("contributor", "-c", "pass", expect=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_step_of_a_models_life_holds(deployment: Deployment, tmp_path: Path) -> None:
    url = deployment.target.url

    def environment(role: str) -> Mapping[str, str]:
        return deployment.environ(role) | {"MLFLOW_TRACKING_URI": url}

    demo = Demo(environment, tmp_path / "lifecycle", Ledger(tmp_path / "processes").tracked)
    assert play(demo, url=url) == 0
    for candidate in ("first", "better"):
        version = json.loads((tmp_path / "lifecycle" / f"{candidate}.json").read_text())["version"]
        assert (tmp_path / "lifecycle" / f"credit-risk-{version}.html").is_file()
