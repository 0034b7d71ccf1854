"""Questions to AWS, through clients whose answers are stubbed."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from findings.reader import AbsentError, AccountReader, DeniedError, NotAskedError


def stubbed(service: str) -> tuple[Any, Stubber]:
    client = boto3.client(
        service,
        region_name="eu-central-1",
        endpoint_url="http://127.0.0.1:1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    return client, Stubber(client)


def test_a_denied_question_names_the_missing_permission() -> None:
    client, stub = stubbed("s3")
    stub.add_client_error("get_bucket_encryption", "AccessDenied")
    with stub, pytest.raises(DeniedError) as refused:
        AccountReader(lambda _: client).ask("s3", "get_bucket_encryption", Bucket="b")
    assert refused.value.action == "s3:GetEncryptionConfiguration"


@pytest.mark.parametrize(
    ("code", "told"), [("InvalidAction", NotAskedError), ("NoSuchBucketPolicy", AbsentError)]
)
def test_an_unknown_question_and_an_absent_thing_are_told_apart(code: str, told: type[Exception]) -> None:
    client, stub = stubbed("s3")
    stub.add_client_error("get_bucket_policy", code)
    with stub, pytest.raises(told):
        AccountReader(lambda _: client).ask("s3", "get_bucket_policy", Bucket="b")


def test_the_same_question_is_asked_once_and_all_its_pages_are_read() -> None:
    client, stub = stubbed("logs")
    stub.add_response("describe_log_groups", {"logGroups": [{"logGroupName": "a"}], "nextToken": "2"})
    stub.add_response("describe_log_groups", {"logGroups": [{"logGroupName": "b"}]})
    reader = AccountReader(lambda _: client)
    with stub:
        for _ in range(2):
            groups = reader.ask("logs", "describe_log_groups")["logGroups"]
            assert [each["logGroupName"] for each in groups] == ["a", "b"]
    assert reader.actions == {"logs:DescribeLogGroups"}
