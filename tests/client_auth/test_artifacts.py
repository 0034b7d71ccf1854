from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from mlflow_aws_auth import artifacts

LISTED = {"Bucket": "bucket", "Prefix": "mlflow/", "MaxKeys": 1}
PROBE = {"Bucket": "bucket", "Key": "mlflow/connection-check"}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Stubber:
    client = boto3.session.Session().client(
        "s3", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    stubber = Stubber(client)
    stubber.activate()
    monkeypatch.setattr(artifacts, "_client", lambda: client)
    return stubber


def begins_and_gives_up(s3: Stubber) -> None:
    s3.add_response("create_multipart_upload", {"UploadId": "u"}, PROBE)
    s3.add_response("abort_multipart_upload", {}, PROBE | {"UploadId": "u"})


def test_writer_lists_and_begins_an_upload_that_it_gives_up(s3: Stubber) -> None:
    s3.add_response("list_objects_v2", {}, LISTED)
    begins_and_gives_up(s3)
    assert artifacts.check("s3://bucket/mlflow", must_write=True) == artifacts.Access(True, True)
    s3.assert_no_pending_responses()


def test_reader_only_lists(s3: Stubber) -> None:
    s3.add_response("list_objects_v2", {}, LISTED)
    assert artifacts.check("s3://bucket/mlflow/", must_write=False) == artifacts.Access(True, False)


def test_whole_bucket_can_be_the_root(s3: Stubber) -> None:
    s3.add_response("list_objects_v2", {}, LISTED | {"Prefix": ""})
    assert artifacts.check("s3://bucket", must_write=False).can_read


@pytest.mark.parametrize(
    ("prepare", "operation"),
    [
        (lambda s3: s3.add_client_error("list_objects_v2", "AccessDenied", "no"), "ListObjectsV2"),
        (
            lambda s3: (
                s3.add_response("list_objects_v2", {}, LISTED),
                s3.add_client_error("create_multipart_upload", "AccessDenied", "no"),
            ),
            "CreateMultipartUpload",
        ),
    ],
)
def test_refusal_names_the_operation(s3: Stubber, prepare: Callable[[Any], object], operation: str) -> None:
    prepare(s3)
    access = artifacts.check("s3://bucket/mlflow", must_write=True)
    assert access.problem == f"S3 answered AccessDenied to {operation}: no"
    assert not access.can_write
    assert access.can_read == (operation != "ListObjectsV2")
