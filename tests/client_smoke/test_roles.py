from __future__ import annotations

import json
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from client_smoke.identity import Caller
from client_smoke.roles import as_promoter, contributor_is_refused_a_promotion, viewer_is_refused_a_write
from client_smoke.smoke import Smoke
from client_smoke.tokens import Tokens
from client_smoke.tracking import LoggedRun
from client_smoke.verdict import CannotRun, NotTried, StepFailed
from client_smoke.wire import Traffic
from tests.roles import permissions

Offline = Callable[..., Smoke]
RUN = LoggedRun("r", "s3://b/1/r/artifacts", "", 1, Traffic())
DENIED = {"error_code": "PERMISSION_DENIED"}


def server(allow: str = "", *, error: dict[str, str] = DENIED, read: int = 200) -> Callable[..., Any]:
    def respond(_token: object, method: str, path: str, **_: object) -> Any:
        if method == "GET":
            return SimpleNamespace(status_code=read, text="{}")
        if allow and allow in path:
            return SimpleNamespace(status_code=200, text="{}")
        return SimpleNamespace(status_code=403, text=json.dumps(error))

    return respond


def viewing(offline: Offline, respond: Callable[..., Any]) -> Smoke:
    smoke = offline(tokens=Tokens(viewer="a viewer's"), request_as=respond)
    smoke.remember(RUN)
    return smoke


def contributing(offline: Offline, respond: Callable[..., Any], *, role: str = "contributor") -> Smoke:
    smoke = offline(request_as=respond, own_token=lambda: "own")
    smoke.remember(Caller("me", role, permissions(role)))
    return smoke


def test_viewer_that_is_refused_passes(offline: Offline) -> None:
    assert viewer_is_refused_a_write(viewing(offline, server())) == "read 200; 4 writes refused with 403"


@pytest.mark.parametrize(
    "allowed", ["experiments/create", "runs/log-metric", "runs/delete", "registered-models/create"]
)
def test_one_write_that_a_viewer_may_do_fails_the_step(offline: Offline, allowed: str) -> None:
    with pytest.raises(StepFailed, match=f"{allowed} by a viewer answered 200"):
        viewer_is_refused_a_write(viewing(offline, server(allowed)))


def test_refusal_for_another_reason_than_the_role_fails_the_step(offline: Offline) -> None:
    with pytest.raises(StepFailed, match="answered 403 CSRF, not 403 PERMISSION_DENIED"):
        viewer_is_refused_a_write(viewing(offline, server(error={"error_code": "CSRF"})))


def test_viewer_that_may_not_even_read_proves_nothing(offline: Offline) -> None:
    with pytest.raises(CannotRun, match="the viewer may not even read"):
        viewer_is_refused_a_write(viewing(offline, server(read=401)))


def test_without_a_viewers_token_the_step_is_skipped_with_what_to_pass(offline: Offline) -> None:
    with pytest.raises(NotTried) as skipped:
        viewer_is_refused_a_write(offline())
    assert skipped.value.next_action == "pass --viewer-token-file FILE"


def test_contributor_that_is_refused_passes(offline: Offline) -> None:
    smoke = contributing(offline, server())
    assert contributor_is_refused_a_promotion(smoke) == "stage and alias refused with 403"


@pytest.mark.parametrize("allowed", ["transition-stage", "registered-models/alias"])
def test_promotion_that_a_contributor_may_do_fails_the_step(offline: Offline, allowed: str) -> None:
    with pytest.raises(StepFailed, match=f"{allowed} by a contributor answered 200"):
        contributor_is_refused_a_promotion(contributing(offline, server(allowed)))


@pytest.mark.parametrize("role", ["auditor", "viewer", "approver", "admin"])
def test_other_roles_cannot_try_what_a_contributor_may_not(offline: Offline, role: str) -> None:
    with pytest.raises(NotTried, match=f"this client's role is {role}"):
        contributor_is_refused_a_promotion(contributing(offline, server(), role=role))


def test_approver_given_promotes_for_the_caller(offline: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "aws")
    smoke = offline(tokens=Tokens(approver="an approver's"))
    smoke.remember(Caller("me", "admin", permissions("admin")))
    with as_promoter(smoke):
        assert os.environ["MLFLOW_TRACKING_TOKEN"] == "an approver's"
        assert "MLFLOW_TRACKING_AUTH" not in os.environ
    assert os.environ["MLFLOW_TRACKING_AUTH"] == "aws"
    assert "MLFLOW_TRACKING_TOKEN" not in os.environ


@pytest.mark.parametrize("role", ["approver", "admin"])
def test_caller_who_may_promote_does_so_itself(offline: Offline, role: str) -> None:
    smoke = offline()
    smoke.remember(Caller("me", role, permissions(role)))
    with as_promoter(smoke):
        assert "MLFLOW_TRACKING_TOKEN" not in os.environ


@pytest.mark.parametrize("role", ["auditor", "viewer", "contributor"])
def test_nobody_promotes_when_neither_may(offline: Offline, role: str) -> None:
    smoke = offline()
    smoke.remember(Caller("me", role, permissions(role)))
    with pytest.raises(NotTried) as skipped, as_promoter(smoke):
        pytest.fail("the block ran")
    assert skipped.value.seen == f"your role ({role}) may not promote"
    assert skipped.value.next_action == "pass --approver-token-file FILE"
