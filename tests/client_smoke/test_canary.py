"""What a run of the canary says to CloudWatch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from unittest.mock import Mock

import pytest

from client_smoke import canary
from client_smoke.canary import GROUP, line, metrics
from client_smoke.evidence import PRINCIPAL
from client_smoke.identity import Caller
from client_smoke.smoke import Smoke, Step
from client_smoke.tracking import Experiment
from client_smoke.verdict import Result, Status

Offline = Callable[..., Smoke]
ENVIRON = {
    "MLFLOW_AWS_PUBLIC_URL": "https://mlflow.example.com",
    "MLFLOW_AWS_DEPLOYMENT": "Service",
    "MLFLOW_AWS_CANARY_MINUTES": "15",
}
ALWAYS = {"CanarySucceeded", "CanarySeconds"}


def ended(**differently: Status) -> list[Result]:
    return [Result(name, name, differently.get(name, Status.PASSED), 0.1, seen="seen") for name in GROUP]


def test_a_run_in_which_nothing_is_broken_has_two_metrics() -> None:
    assert metrics(ended(), seconds=12.34) == {"CanarySucceeded": 1, "CanarySeconds": 12.3}
    skipped = metrics(ended(run_is_logged=Status.SKIPPED), seconds=1)
    assert skipped == {"CanarySucceeded": 1, "CanarySeconds": 1}


@pytest.mark.parametrize("status", [Status.FAILED, Status.COULD_NOT_RUN, Status.INTERRUPTED])
def test_a_step_that_did_not_pass_is_the_0_of_its_group(status: Status) -> None:
    found = metrics(ended(role_reaches_s3=status, run_is_logged=Status.SKIPPED), seconds=1)
    assert found == {"CanarySucceeded": 0, "CanarySeconds": 1, "CanaryArtifacts": 0}


def test_the_line_is_cloudwatch_s_embedded_metric_format_and_names_what_is_broken() -> None:
    told = line(ended(run_is_logged=Status.FAILED), deployment="Service", seconds=2, at=1.5)
    assert "\n" not in told
    document = json.loads(told)
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert document["_aws"]["Timestamp"] == 1500
    assert (directive["Namespace"], directive["Dimensions"]) == ("MLflowOnAws", [["Deployment"]])
    assert {each["Name"] for each in directive["Metrics"]} == ALWAYS | {"CanaryTracking"}
    assert all(isinstance(document[each["Name"]], float | int) for each in directive["Metrics"])
    assert [each["step"] for each in document["broken"]] == ["run_is_logged"]


def test_the_registry_is_tried_in_the_first_run_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[set[str]] = []

    def run(_canary: object, *, steps: list[Step], **_: object) -> list[Result]:
        tried.append({GROUP[step.name] for step in steps})
        return ended()

    monkeypatch.setattr(canary, "run", run)
    for minute in (14, 15, 59):
        monkeypatch.setattr("time.time", lambda minute=minute: minute * 60.0)
        assert canary.main(ENVIRON) == 0
    assert ["Registry" in each for each in tried] == [True, False, False]


def test_it_removes_what_is_its_own_and_left_for_an_hour_and_nothing_else(offline: Offline) -> None:
    now, old = int(time.time() * 1000), 0
    mine, theirs = "arn:aws:iam::123456789012:role/canary", "arn:aws:iam::123456789012:role/somebody"
    made = {
        "smoke-canary-000000000001": (now, mine),
        "smoke-canary-000000000002": (old, mine),
        "smoke-canary-000000000003": (old, None),
        "smoke-canary-000000000004": (now, mine),
        "smoke-canary-000000000005": (old, theirs),
        "smoke-canary-of-a-person": (old, None),
    }
    client = Mock()
    client.search_registered_models.return_value = [Mock(creation_timestamp=at) for at, _ in made.values()]
    for model, name in zip(client.search_registered_models.return_value, made, strict=True):
        model.name = name

    def versions(condition: str) -> list[Mock]:
        principal = made[condition.split("'")[1]][1]
        return [Mock(tags={PRINCIPAL: principal})] if principal else []

    client.search_model_versions.side_effect = versions
    client.search_runs.return_value = []
    client.search_logged_models.return_value = [Mock(source_run_id="somebody's")]
    smoke = offline(mlflow=client, identifier="000000000001")
    smoke.__class__ = canary.CanaryRun
    smoke.remember(Experiment(id="7", bucket="b", prefix="canary"))
    smoke.remember(Caller(mine, "canary", frozenset(), own_models="smoke-canary-"))
    canary.nothing_of_it_is_left(smoke)
    removed = [call.args[0][-1] for call in client.delete_registered_model.call_args_list]
    assert removed == ["1", "2", "3"]
    assert all(mine in call.kwargs["filter_string"] for call in client.search_runs.call_args_list)
    client.delete_logged_model.assert_not_called()


def test_a_run_that_takes_too_long_is_interrupted_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stuck(_smoke: Smoke) -> str:
        time.sleep(30)
        return ""

    slow = Step(stuck, "something takes for ever")
    monkeypatch.setattr(canary, "_ORDER", (("Tracking", slow), ("Tracking", canary.CLEANUP)))
    monkeypatch.setattr(canary, "GROUP", {"stuck": "Tracking"})
    monkeypatch.setattr(canary, "LARGEST_RUN_SECONDS", 1)
    assert canary.main(ENVIRON) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["CanarySucceeded"], told["CanaryTracking"]) == (0, 0)
    assert [each["step"] for each in told["broken"]] == ["stuck"]
