from __future__ import annotations

import os
from typing import Any

import mlflow_aws_auth
import pytest
from mlflow_aws_auth import AwsAuthError, artifacts, connect
from mlflow_aws_auth.artifacts import Access

from tests.client_auth.standins import ROLE, Sts, Tracking

WHOAMI = "/api/2.0/mlflow-aws/whoami"


@pytest.fixture(autouse=True)
def access(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """S3 gives what is asked of it; returns what was asked."""
    asked: list[tuple[str, bool]] = []

    def check(root: str, *, must_write: bool) -> Access:
        asked.append((root, must_write))
        return Access(can_read=True, can_write=must_write)

    monkeypatch.setattr(artifacts, "check", check)
    return asked


def test_connect_says_who_you_are_and_points_mlflow_there(
    sts: Sts, tracking: Tracking, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    connection = connect(tracking.url)
    assert (connection.principal, connection.role) == (ROLE, "contributor")
    assert connection.ui_url == "https://mlflow.example.com"
    assert connection.artifact_root == "s3://bucket/mlflow"
    assert connection.problems == ()
    assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == tracking.url
    assert os.environ["MLFLOW_TRACKING_AUTH"] == "aws"
    assert capsys.readouterr().out.splitlines() == [
        f"connected to {tracking.url}",
        f"  you are    {ROLE}",
        "  your role  contributor",
        "  artifacts  s3://bucket/mlflow (read and write)",
        "  UI         https://mlflow.example.com",
    ]


def test_mlflow_works_after_connect(sts: Sts, tracking: Tracking) -> None:
    import mlflow

    connect(tracking.url, quiet=True)
    tracking.answers["/api/2.0/mlflow/experiments/search"] = (200, {"experiments": []})
    assert mlflow.search_experiments() == []
    assert len(sts.calls) == 1


def test_connect_twice_is_the_same(sts: Sts, tracking: Tracking) -> None:
    assert connect(tracking.url, quiet=True) == connect(tracking.url + "/", quiet=True)
    assert len(sts.calls) == 1


def test_quiet_prints_nothing(sts: Sts, tracking: Tracking, capsys: pytest.CaptureFixture[str]) -> None:
    connect(tracking.url, quiet=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "answer",
    [
        {"role": "viewer", "permissions": ["read"]},
        {"role": "auditor", "permissions": ["read", "audit"]},
        {"role": "viewer"},  # a server from before permissions
    ],
)
def test_a_role_that_only_reads_needs_to_read_only(
    sts: Sts,
    tracking: Tracking,
    access: list[tuple[str, bool]],
    capsys: pytest.CaptureFixture[str],
    answer: dict[str, object],
) -> None:
    tracking.answers[WHOAMI] = (200, {"principal": ROLE, **answer})
    connect(tracking.url)
    assert access == [("s3://bucket/mlflow", False)]
    assert "(read)" in capsys.readouterr().out


def test_missing_access_to_s3_is_a_problem_that_names_who_can_fix_it(
    sts: Sts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    denied = Access(
        can_read=True, can_write=False, problem="S3 answered AccessDenied to CreateMultipartUpload"
    )
    monkeypatch.setattr(artifacts, "check", lambda *_, **__: denied)
    (problem,) = connect(tracking.url).problems
    assert "cannot write artifacts, as a contributor should" in problem
    assert "ContributorPolicyArn" in problem
    assert "whoever administers your IAM role" in problem
    assert f"problem: {problem}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "body", "seen", "action", "who"),
    [
        (
            401,
            {"error_code": "UNAUTHENTICATED", "message": "wrong audience"},
            "does not accept your token: wrong audience",
            "TokenAudience",
            "who runs the MLflow deployment",
        ),
        (
            403,
            {"error_code": "PERMISSION_DENIED", "message": "no role"},
            f"knows you as {ROLE}, and you have no role there: no role",
            "[identity.roles]",
            "who runs the MLflow deployment",
        ),
        (503, {}, "answered 503", "try again in a minute", "who runs the MLflow deployment"),
        (404, {}, "this is not MLflow on AWS", "TrackingUrl", "you"),
        (200, "<html>", "this is not MLflow on AWS", "TrackingUrl", "you"),
    ],
)
def test_refusal_by_the_server_says_what_to_do_and_who_can_do_it(
    sts: Sts, tracking: Tracking, status: int, body: Any, seen: str, action: str, who: str
) -> None:
    tracking.answers[WHOAMI] = (status, body)
    with pytest.raises(AwsAuthError) as error:
        connect(tracking.url)
    assert seen in error.value.seen
    assert action in error.value.next_action
    assert who in error.value.who
    assert str(tracking.authorizations[0]).removeprefix("Bearer ") not in str(error.value)


def test_failed_connect_leaves_mlflow_where_it_was(sts: Sts, tracking: Tracking) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    tracking.answers[WHOAMI] = (401, {})
    with pytest.raises(AwsAuthError):
        connect(tracking.url)
    assert mlflow.get_tracking_uri() == before
    assert "MLFLOW_TRACKING_AUTH" not in os.environ


def test_server_that_takes_you_for_somebody_else_is_told(sts: Sts, tracking: Tracking) -> None:
    tracking.answers[WHOAMI] = (200, {"principal": f"{ROLE}-2", "role": "admin"})
    with pytest.raises(AwsAuthError, match=f"AWS calls you {ROLE}, and .* calls you {ROLE}-2"):
        connect(tracking.url)


def test_server_that_is_not_there_is_told(sts: Sts) -> None:
    with pytest.raises(AwsAuthError, match="cannot be reached") as error:
        connect("http://127.0.0.1:1")
    assert "VPN" in error.value.next_action


def test_redirect_is_not_followed(sts: Sts, tracking: Tracking) -> None:
    tracking.redirect = "http://127.0.0.1:1"
    with pytest.raises(AwsAuthError, match=r"answered 307 .* this is not MLflow on AWS"):
        connect(tracking.url)


def test_plain_http_is_refused_before_aws_is_asked(sts: Sts) -> None:
    with pytest.raises(AwsAuthError, match="is not encrypted"):
        connect("http://mlflow.example.com")
    assert sts.calls == []


def test_unknown_artifact_root_is_a_problem(
    sts: Sts, tracking: Tracking, access: list[tuple[str, bool]]
) -> None:
    del tracking.answers["/api/2.0/mlflow/experiments/get"]
    (problem,) = connect(tracking.url, quiet=True).problems
    assert "the artifact root is unknown" in problem
    assert access == []


def test_public_names_are_these() -> None:
    assert mlflow_aws_auth.__all__ == ["AwsAuthError", "Connection", "connect"]
