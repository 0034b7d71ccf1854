from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest

from client_smoke.artifacts import (
    artifacts_come_back_identical,
    objects_are_versioned_and_encrypted,
    role_reaches_s3,
    server_never_carries_artifacts,
)
from client_smoke.cleanup import nothing_stays_behind
from client_smoke.smoke import Smoke
from client_smoke.tracking import FILE_ARTIFACT, LoggedRun, experiment_has_an_s3_root, run_is_logged
from client_smoke.verdict import StepFailed
from client_smoke.wire import Traffic

Offline = Callable[..., Smoke]


@pytest.fixture
def logged(smoke: Smoke) -> Any:
    experiment_has_an_s3_root(smoke)
    run_is_logged(smoke)
    yield smoke
    nothing_stays_behind(smoke)


def object_of(smoke: Smoke) -> dict[str, str]:
    location = urlsplit(smoke.recall(LoggedRun).artifact_uri)
    return {"Bucket": location.netloc, "Key": f"{location.path.lstrip('/')}/{FILE_ARTIFACT}"}


@pytest.mark.slow
def test_artifact_changed_in_s3_is_noticed(logged: Smoke) -> None:
    artifacts_come_back_identical(logged)
    where = object_of(logged)
    content = bytearray(logged.s3.get_object(**where)["Body"].read())
    content[500_000] ^= 1
    logged.s3.put_object(**where, Body=bytes(content))
    with pytest.raises(StepFailed) as broken:
        artifacts_come_back_identical(logged)
    assert "SHA-256 does not match" in broken.value.seen


def test_object_without_kms_key_fails_the_step(logged: Smoke) -> None:
    assert "aws:kms" in objects_are_versioned_and_encrypted(logged)
    where = object_of(logged)
    content = logged.s3.get_object(**where)["Body"].read()
    logged.s3.put_object(**where, Body=content, ServerSideEncryption="AES256")
    with pytest.raises(StepFailed, match="encrypted with AES256"):
        objects_are_versioned_and_encrypted(logged)


def head(**changes: object) -> dict[str, object]:
    good = {
        "VersionId": "v1",
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "arn:aws:kms:eu-central-1:111122223333:key/k",
        "ContentLength": 1_000_000,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def offline_run(offline: Offline, *, traffic: Traffic | None = None, **fakes: object) -> Smoke:
    smoke = offline(**fakes)
    smoke.remember(
        LoggedRun(
            id="r",
            artifact_uri="s3://b/1/r/artifacts",
            file_sha256="",
            file_bytes=1_000_000,
            traffic=traffic or Traffic(),
        )
    )
    return smoke


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (head(VersionId=None), "no version id"),
        (head(VersionId="null"), "no version id"),
        (head(ServerSideEncryption=None), "encrypted with nothing"),
        (head(SSEKMSKeyId=None), "not with a KMS key"),
        (head(ContentLength=999_999), "999999 bytes in S3"),
    ],
)
def test_object_that_is_not_as_expected_is_noticed(
    answer: dict[str, object], reason: str, offline: Offline
) -> None:
    smoke = offline_run(offline, s3=Mock(head_object=Mock(return_value=answer)))
    with pytest.raises(StepFailed) as broken:
        objects_are_versioned_and_encrypted(smoke)
    assert reason in broken.value.seen


def test_server_that_leaves_artifacts_alone_passes(logged: Smoke) -> None:
    assert "proxy refused (GET 403, PUT 403, GET 403)" in server_never_carries_artifacts(logged)


def test_upload_that_went_through_the_server_is_noticed(offline: Offline) -> None:
    traffic = Traffic()
    traffic.sent["localhost", 1] = 1_100_000
    smoke = offline_run(offline, traffic=traffic)
    with pytest.raises(StepFailed, match="1,100,000 bytes went to the server"):
        server_never_carries_artifacts(smoke)


@pytest.mark.parametrize("accepting", ["GET", "PUT"])
def test_server_that_proxies_artifacts_is_noticed_and_left_clean(accepting: str, offline: Offline) -> None:
    traffic = Traffic()
    traffic.sent["s3.example.com", 443] = 1_100_000
    request = Mock(
        side_effect=lambda method, *_, **__: SimpleNamespace(status_code=200 if method == accepting else 503)
    )
    smoke = offline_run(offline, traffic=traffic, request=request)
    with pytest.raises(StepFailed, match=f"{accepting} .* answered 200: the server proxies artifacts"):
        server_never_carries_artifacts(smoke)
    deleted = [call for call in request.call_args_list if call.args[0] == "DELETE"]
    assert bool(deleted) is (accepting == "PUT")


def test_download_through_the_server_is_noticed(logged: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    download = mlflow.artifacts.download_artifacts

    def through_the_server(**options: Any) -> str:
        logged.request("GET", f"/get-artifact?run_id={options['run_id']}&path={options['artifact_path']}")
        path: str = download(**options)
        return path

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", through_the_server)
    with pytest.raises(StepFailed, match="the download went through the server: GET /get-artifact"):
        artifacts_come_back_identical(logged)


def test_s3_that_returns_other_bytes_fails_the_step(logged: Smoke) -> None:
    body = Mock(read=Mock(return_value=b"something else"))
    logged.__dict__["s3"] = Mock(wraps=logged.s3, get_object=Mock(return_value={"Body": body}))
    try:
        with pytest.raises(StepFailed, match="bytes other than those written"):
            role_reaches_s3(logged)
    finally:
        del logged.__dict__["s3"]


def test_run_that_does_not_finish_fails_the_step(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment_has_an_s3_root(smoke)
    get_run = smoke.mlflow.get_run

    def unfinished(run_id: str) -> Any:
        run = get_run(run_id)
        return SimpleNamespace(info=SimpleNamespace(status="RUNNING"), data=run.data)

    monkeypatch.setattr(smoke.mlflow, "get_run", unfinished)
    with pytest.raises(StepFailed, match="the run ended as RUNNING"):
        run_is_logged(smoke)
    nothing_stays_behind(smoke)


def test_traffic_of_the_real_upload_went_past_the_server(logged: Smoke) -> None:
    run = logged.recall(LoggedRun)
    assert run.traffic.to(logged.target.host, logged.target.port) < 20_000
    assert run.traffic.elsewhere(logged.target.host, logged.target.port) > run.file_bytes
