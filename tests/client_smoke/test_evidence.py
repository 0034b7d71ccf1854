from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from client_smoke.evidence import (
    author_cannot_be_forged,
    promotion_leaves_history,
    run_records_its_author,
    version_records_its_author,
)
from client_smoke.identity import Caller, Promoter
from client_smoke.models import FirstVersion, SecondVersion
from client_smoke.smoke import Smoke
from client_smoke.tracking import Experiment, LoggedRun
from client_smoke.verdict import StepFailed
from client_smoke.wire import Traffic
from tests.roles import permissions

Offline = Callable[..., Smoke]
ME = {"mlflow_aws.principal": "me"}


@pytest.fixture
def recorded(offline: Offline) -> Callable[..., Smoke]:
    """A run at a server that recorded these authors and answers the reserved tag like this."""

    def make(
        *, run: dict[str, str] = ME, version: dict[str, str] = ME, accepts: str = "", created: int = 200
    ) -> Smoke:
        def respond(_token: object, _method: str, path: str, **_: object) -> Any:
            if path.endswith("runs/create"):
                body = {"run": {"info": {"run_id": "r2"}}}
                return SimpleNamespace(status_code=created, text=json.dumps(body), reason="")
            allowed = accepts and path.endswith(accepts)
            return SimpleNamespace(status_code=200 if allowed else 403, text="{}", reason="")

        client = Mock()
        client.get_run.return_value.data.tags = run
        client.get_model_version.return_value.tags = version
        smoke = offline(mlflow=client, request_as=respond, own_token=lambda: "own")
        smoke.remember(Caller("me", "contributor", permissions("contributor")))
        smoke.remember(Experiment("7", "bucket", "runs/7"))
        smoke.remember(LoggedRun("r", "s3://b/1/r/artifacts", "", 1, Traffic()))
        smoke.remember(FirstVersion(version="1", model_uuid="first"))
        return smoke

    return make


def test_recorded_caller_passes(recorded: Callable[..., Smoke]) -> None:
    smoke = recorded()
    assert run_records_its_author(smoke) == "mlflow_aws.principal = me"
    assert version_records_its_author(smoke) == "mlflow_aws.principal = me"
    assert author_cannot_be_forged(smoke) == "5 attempts refused with 403; author is still me"


@pytest.mark.parametrize(
    ("tags", "named"), [({}, "nobody"), ({"mlflow_aws.principal": "somebody"}, "somebody")]
)
def test_other_author_or_none_fails_the_step(
    recorded: Callable[..., Smoke], tags: dict[str, str], named: str
) -> None:
    with pytest.raises(StepFailed, match=f"run r names {named} as its author, and the caller is me"):
        run_records_its_author(recorded(run=tags))
    with pytest.raises(StepFailed, match=f"version 1 of .* names {named} as its author"):
        version_records_its_author(recorded(version=tags))


@pytest.mark.parametrize(
    "accepts",
    [
        "runs/set-tag",
        "runs/delete-tag",
        "runs/log-batch",
        "model-versions/set-tag",
        "model-versions/delete-tag",
    ],
)
def test_one_way_to_write_the_author_fails_the_step(recorded: Callable[..., Smoke], accepts: str) -> None:
    with pytest.raises(StepFailed, match=f"{accepts} with the tag mlflow_aws.principal answered 200"):
        author_cannot_be_forged(recorded(accepts=accepts))


def test_run_that_starts_with_a_forged_author_may_be_refused(recorded: Callable[..., Smoke]) -> None:
    author_cannot_be_forged(recorded(created=403))


def test_other_answer_to_a_forged_author_fails_the_step(recorded: Callable[..., Smoke]) -> None:
    with pytest.raises(StepFailed, match="a run with a forged author answered 500"):
        author_cannot_be_forged(recorded(created=500))


def promoted(recorded: Callable[..., Smoke], *entries: dict[str, object]) -> Smoke:
    tags = {f"mlflow_aws.history.{number}": json.dumps(entry) for number, entry in enumerate(entries)}
    smoke = recorded(version=ME | tags | {"mlflow_aws.seal": json.dumps({"sha256": "sum"})})
    smoke.remember(SecondVersion(version="2", model_uuid="second", run_id="r2"))
    smoke.remember(Promoter("an approver"))
    return smoke


ENTRY: dict[str, object] = {
    "at": "2026-01-02T03:04:05+00:00",
    "action": "stage",
    "stage": "Production",
    "principal": "an approver",
    "previous": "1",
    "seal": "sum",
}


def test_record_of_the_promotion_passes(recorded: Callable[..., Smoke]) -> None:
    smoke = promoted(recorded, ENTRY, ENTRY | {"stage": "Staging"})
    assert (
        promotion_leaves_history(smoke) == "an approver at 2026-01-02T03:04:05+00:00, in place of version 1"
    )


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [ENTRY | {"principal": "me"}],
        [ENTRY | {"stage": "Archived"}],
        [ENTRY | {"previous": None}],
        [ENTRY | {"seal": "another"}],
        [ENTRY | {"seal": None}],
        [ENTRY, ENTRY],
    ],
)
def test_other_record_or_none_fails_the_step(
    recorded: Callable[..., Smoke], entries: list[dict[str, object]]
) -> None:
    with pytest.raises(StepFailed, match=f"version 2 has {len(entries)} entries of history"):
        promotion_leaves_history(promoted(recorded, *entries))
