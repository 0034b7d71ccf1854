from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from client_smoke.identity import (
    WHOAMI,
    Caller,
    Promoter,
    forged_token_is_refused,
    no_token_is_refused,
    server_knows_you,
)
from client_smoke.smoke import Smoke
from client_smoke.tokens import Tokens
from client_smoke.verdict import CannotRun, StepFailed
from tests.client_smoke.conftest import Deployment
from tests.roles import permissions
from tests.server.conftest import Identity

Offline = Callable[..., Smoke]


def answer(status: int, body: object = None, **headers: str) -> Any:
    return SimpleNamespace(status_code=status, text=json.dumps(body or {}), headers=headers, reason="because")


def test_real_gate_turns_away_who_has_no_token(smoke: Smoke) -> None:
    assert no_token_is_refused(smoke) == "GET api 401, GET ajax-api 401, POST api 401"
    assert not smoke.made_something


def test_real_gate_turns_away_every_forgery(smoke: Smoke) -> None:
    assert forged_token_is_refused(smoke).count(": 401") == 3


def test_real_gate_knows_the_caller(smoke: Smoke) -> None:
    assert server_knows_you(smoke) == f"{Identity.arn('contributor')}, contributor"
    assert smoke.recall(Caller) == Caller(
        Identity.arn("contributor"), "contributor", permissions("contributor")
    )


def test_token_of_another_role_than_announced_cannot_run(smoke: Smoke, deployment: Deployment) -> None:
    smoke.tokens = Tokens(viewer=deployment.token("approver"))
    with pytest.raises(CannotRun, match=r"viewer token is .*mlflow-approver's, who has the role approver"):
        server_knows_you(smoke)


def test_admin_may_stand_in_for_the_approver(smoke: Smoke, deployment: Deployment) -> None:
    smoke.tokens = Tokens(approver=deployment.token("admin"))
    server_knows_you(smoke)
    assert smoke.recall(Promoter) == Promoter(Identity.arn("admin"))


@pytest.mark.parametrize("open_call", ["GET /api", "GET /ajax-api", "POST /api"])
def test_call_that_is_answered_without_a_token_fails_the_step(offline: Offline, open_call: str) -> None:
    def respond(_token: object, method: str, path: str, **_: object) -> Any:
        return answer(200 if f"{method} {path}".startswith(open_call + "/2") else 401)

    smoke = offline(request_as=respond)
    with pytest.raises(StepFailed, match=r"without a token answered 200") as broken:
        no_token_is_refused(smoke)
    assert "take the deployment off the network" in broken.value.next_action
    assert smoke.made_something == open_call.startswith("POST")


def test_way_to_the_sign_in_page_is_a_refusal(offline: Offline) -> None:
    login = "https://pool.auth.eu-central-1.amazoncognito.com/oauth2/authorize?x=1"
    assert "GET api 302" in no_token_is_refused(
        offline(request_as=lambda *_, **__: answer(302, Location=login))
    )


@pytest.mark.parametrize(
    "location", ["https://localhost:1/somewhere", "/somewhere", "http://elsewhere.example"]
)
def test_other_redirects_are_no_refusal(offline: Offline, location: str) -> None:
    with pytest.raises(StepFailed, match="answered 302"):
        no_token_is_refused(offline(request_as=lambda *_, **__: answer(302, Location=location)))


def test_forged_token_that_passes_fails_the_step(offline: Offline) -> None:
    smoke = offline(request_as=lambda *_, **__: answer(200), own_token=lambda: None)
    with pytest.raises(StepFailed, match="a token signed with a foreign RSA key was answered 200"):
        forged_token_is_refused(smoke)


@pytest.mark.parametrize(
    ("status", "body", "kind", "seen"),
    [
        (401, {"message": "expired"}, CannotRun, "this client's token was not accepted: expired"),
        (403, {"message": "nobody"}, CannotRun, "this client's identity has no role: nobody"),
        (404, {}, StepFailed, f"{WHOAMI} answered 404"),
        (200, {"principal": "x", "role": "viewer"}, StepFailed, "without a principal, a role and its"),
        (200, {"principal": "x", "permissions": ["read"]}, StepFailed, "without a principal, a role and"),
    ],
)
def test_caller_that_the_server_does_not_know_is_told_why(
    offline: Offline, status: int, body: object, kind: type[Exception], seen: str
) -> None:
    with pytest.raises(kind) as error:
        server_knows_you(offline(request=lambda *_: answer(status, body)))
    assert seen in error.value.seen  # type: ignore[attr-defined]


def test_own_token_of_an_auth_plugin_is_found(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking.request_auth import registry

    def sign(request: Any) -> Any:
        request.headers["Authorization"] = "Bearer of-the-plugin"
        return request

    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "aws")
    monkeypatch.setattr(registry, "fetch_auth", lambda name: sign if name == "aws" else None)
    assert smoke.own_token() == "of-the-plugin"


def test_request_without_token_ignores_a_netrc_file(
    smoke: Smoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login somebody password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert smoke.request_as(None, "GET", WHOAMI).status_code == 401
    assert "Authorization" not in smoke.request_as(None, "GET", WHOAMI).request.headers


def test_request_that_is_not_retried_has_a_connection_of_its_own(smoke: Smoke) -> None:
    for answer in (smoke.request("GET", WHOAMI), smoke.request_as(None, "GET", WHOAMI)):
        assert answer.request.headers["Connection"] == "close"
        assert answer.headers["Connection"] == "close"


def test_acting_as_another_ends_with_the_block(smoke: Smoke, deployment: Deployment) -> None:
    with smoke.acting_as(deployment.token("approver")):
        assert smoke.request("GET", WHOAMI).json()["role"] == "approver"
    assert smoke.request("GET", WHOAMI).json()["role"] == "contributor"
