from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest

from client_smoke.environment import bound_waits, ca_bundle, require_temporary, use_bounded_aws_session
from client_smoke.verdict import CannotRun


def test_private_ca_of_mlflow_comes_before_that_of_requests(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.pem", tmp_path / "theirs.pem"
    ours.touch()
    theirs.touch()
    environ = {"REQUESTS_CA_BUNDLE": str(theirs), "MLFLOW_TRACKING_SERVER_CERT_PATH": str(ours)}
    assert ca_bundle(environ) == str(ours)
    assert ca_bundle({"REQUESTS_CA_BUNDLE": str(theirs)}) == str(theirs)


def test_public_cas_are_trusted_when_none_is_named() -> None:
    assert Path(ca_bundle({})).read_text().count("BEGIN CERTIFICATE") > 50


def test_ca_file_that_is_not_there_cannot_run() -> None:
    with pytest.raises(CannotRun, match=r"MLFLOW_TRACKING_SERVER_CERT_PATH names /nowhere/ca\.pem"):
        ca_bundle({"MLFLOW_TRACKING_SERVER_CERT_PATH": "/nowhere/ca.pem"})


@pytest.mark.parametrize("value", ["true", "1", "TRUE"])
def test_switched_off_verification_cannot_run(value: str) -> None:
    with pytest.raises(CannotRun, match="would trust anybody"):
        ca_bundle({"MLFLOW_TRACKING_INSECURE_TLS": value})


def test_waits_are_bounded_and_foreign_settings_dropped() -> None:
    environ = {"MLFLOW_RUN_ID": "of another run", "MLFLOW_TRACKING_TOKEN": "identity"}
    bound_waits(environ, seconds=2.5)
    assert environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3"
    assert environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
    assert environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "MLFLOW_RUN_ID" not in environ
    assert environ["MLFLOW_TRACKING_TOKEN"] == "identity"


@pytest.mark.parametrize(
    ("access_key", "token", "reason"),
    [
        (None, None, "no AWS credentials"),
        ("AKIAIOSFODNN7EXAMPLE", None, "long-lived access key"),
        ("AKIAIOSFODNN7EXAMPLE", "a token does not make it temporary", "long-lived access key"),
        ("ASIAIOSFODNN7EXAMPLE", None, "no session token"),
        ("test", "", "no session token"),
    ],
)
def test_credentials_that_do_not_expire_are_refused(
    access_key: str | None, token: str | None, reason: str
) -> None:
    with pytest.raises(CannotRun) as refusal:
        require_temporary(access_key, token)
    assert reason in refusal.value.seen
    assert "assume the client role" in refusal.value.next_action
    assert "IOSFODNN7EXAMPLE" not in refusal.value.seen


def test_temporary_credentials_are_accepted() -> None:
    require_temporary("ASIAIOSFODNN7EXAMPLE", "token")


def test_every_s3_client_of_the_process_gives_up_in_time(
    client_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact.s3_artifact_repo import _get_s3_client

    use_bounded_aws_session(seconds=4.5)
    # An address of its own, as MLflow caches its clients by endpoint.
    mlflows_own = _get_s3_client(s3_endpoint_url="http://127.0.0.1:1/bounded")
    assert mlflows_own.meta.config.connect_timeout == 4.5
    assert mlflows_own.meta.config.read_timeout == 4.5
    assert mlflows_own.meta.config.retries["total_max_attempts"] == 2


def test_missing_region_cannot_run(client_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(CannotRun, match="no AWS region"):
        use_bounded_aws_session(seconds=1)


def test_region_may_be_named_as_the_other_sdks_name_it(
    client_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    use_bounded_aws_session(seconds=1)
    assert boto3.client("s3").meta.region_name == "eu-north-1"


def test_profile_that_does_not_exist_cannot_run(
    client_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "of-nobody")
    assert os.environ["AWS_CONFIG_FILE"] == os.devnull
    with pytest.raises(CannotRun, match="of-nobody"):
        use_bounded_aws_session(seconds=1)
