from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import jwt
import pytest
from mlflow_aws_auth import web_identity
from mlflow_aws_auth.errors import AwsAuthError
from mlflow_aws_auth.token_cache import Token

from tests.client_auth.standins import ROLE, Sts

AUDIENCE = "https://mlflow.example.com"


def fetch() -> Token:
    session = web_identity.default_session()
    return web_identity.fetch(session, web_identity.credentials_of(session), audience=AUDIENCE)


def test_token_is_rs256_for_one_audience_and_a_quarter_of_an_hour(sts: Sts) -> None:
    token = fetch()
    (call,) = sts.calls
    assert call["Action"] == "GetWebIdentityToken"
    assert call["SigningAlgorithm"] == "RS256"
    assert call["DurationSeconds"] == "900"
    assert [value for name, value in call.items() if name.startswith("Audience")] == [AUDIENCE]
    claims = jwt.decode(token.value, sts.key.public_pem, algorithms=["RS256"], audience=AUDIENCE)
    assert claims["sub"] == ROLE
    assert claims["exp"] == token.expires


def test_shorter_token_is_taken_when_the_credentials_end_soon(sts: Sts) -> None:
    sts.longest = 300
    token = fetch()
    assert [call["DurationSeconds"] for call in sts.calls] == ["900", "300"]
    assert token.expires - token.issued < 301


def test_clock_that_is_behind_does_not_make_a_token_hold_longer(
    sts: Sts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_identity, "time", SimpleNamespace(time=lambda: time.time() - 300))
    token = fetch()
    assert token.expires == token.issued + 900


@pytest.mark.parametrize(
    ("status", "code", "seen", "action", "who"),
    [
        (
            403,
            "OutboundWebIdentityFederationDisabledException",
            "federation is off in your AWS account",
            "aws iam enable-outbound-web-identity-federation",
            "an administrator of your AWS account",
        ),
        (
            403,
            "AccessDenied",
            f"you may not call sts:GetWebIdentityToken for {AUDIENCE}",
            "attach one of the deployment's policies",
            "whoever administers your IAM role",
        ),
        (403, "ExpiredToken", "your AWS credentials have ended", "sign in again", "you"),
        (403, "InvalidClientTokenId", "AWS does not know your credentials", "sign in again", "you"),
        (403, "SessionDurationEscalationException", "end within a minute", "sign in again", "you"),
        (400, "InvalidAction", "does not know GetWebIdentityToken", "AWS_ENDPOINT_URL_STS", "you"),
        (400, "SomethingNew", "answered SomethingNew: because", "try again", "you"),
    ],
)
def test_refusal_says_what_was_seen_what_to_do_and_who_can_do_it(
    sts: Sts, status: int, code: str, seen: str, action: str, who: str
) -> None:
    sts.refusal = (status, code, "because")
    with pytest.raises(AwsAuthError) as caught:
        fetch()
    error = caught.value
    assert seen in error.seen
    assert action in error.next_action
    assert who in error.who
    assert f"next: {error.next_action}" in str(error)
    assert f"who:  {error.who}" in str(error)
    for secret in ("nothing-secret", "nothing-session", "ASIATESTTESTTESTTEST"):
        assert secret not in str(error)


@pytest.mark.parametrize("arn", ["arn:aws:iam::123456789012:user/alice", "arn:aws:iam::123456789012:root"])
def test_iam_user_is_told_to_assume_a_role(sts: Sts, arn: str) -> None:
    sts.subject = arn
    with pytest.raises(AwsAuthError, match="an IAM user, and MLflow on AWS knows roles only") as error:
        fetch()
    assert arn in error.value.seen
    assert "assume a role" in error.value.next_action


def test_missing_credentials_are_told(sts: Sts, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(AwsAuthError, match=r"no AWS credentials were found\n  next: sign in \(aws sso login"):
        fetch()
    assert sts.calls == []


def test_missing_region_is_told(sts: Sts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(AwsAuthError, match="no AWS region is set") as error:
        fetch()
    assert "AWS_REGION" in error.value.next_action
    assert sts.calls == []


def test_boto3_that_does_not_know_the_call_is_told_how_to_update(
    sts: Sts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_identity, "_client", lambda *_: SimpleNamespace())
    with pytest.raises(AwsAuthError, match="does not know sts:GetWebIdentityToken") as error:
        fetch()
    assert boto3.__version__ in error.value.seen
    assert "pip install --upgrade 'boto3>=1.41'" in error.value.next_action


def test_sts_that_cannot_be_reached_is_told(sts: Sts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    with pytest.raises(AwsAuthError, match="STS in eu-central-1 cannot be asked") as error:
        fetch()
    assert "endpoint for STS" in error.value.next_action


@pytest.mark.parametrize("setting", [None, "legacy", "regional"])
def test_regional_endpoint_is_asked_whatever_is_configured(
    sts: Sts, monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_STS")
    if setting is not None:
        monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", setting)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    session = web_identity.default_session()
    client = web_identity._client(session, web_identity.credentials_of(session), "us-east-1")
    assert addressed(client) == "https://sts.us-east-1.amazonaws.com/"


def addressed(client: Any) -> str:
    """Where a call would go; nothing is sent."""
    seen: list[str] = []

    def stop(request: Any, **_: object) -> None:
        seen.append(request.url)
        raise InterruptedError

    client.meta.events.register("before-send.sts", stop)
    with pytest.raises(InterruptedError):
        client.get_web_identity_token(Audience=[AUDIENCE], SigningAlgorithm="RS256")
    return seen[0]


def test_profile_of_the_default_session_is_used(
    sts: Sts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile approver]\nregion = eu-west-1\naws_access_key_id = ASIAOTHEROTHEROTHER1\n"
        "aws_secret_access_key = nothing\naws_session_token = nothing\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name)
    boto3.setup_default_session(profile_name="approver")
    assert web_identity.subject(fetch().value) == ROLE
    assert web_identity.region_of(web_identity.default_session()) == "eu-west-1"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a.e30.c", "a.W10.c"])
def test_subject_of_something_else_is_empty(token: str) -> None:
    assert web_identity.subject(token) == ""


def test_no_metadata_service_is_asked_in_these_tests(sts: Sts) -> None:
    assert os.environ["AWS_EC2_METADATA_DISABLED"] == "true"
