"""Copies, locks and replicas in the account's S3: as sealing needs them, and as AWS does it."""

from __future__ import annotations

import datetime as dt
import json
import time
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import ACCOUNT, REGION, Account

VERSIONED = {"VersioningConfiguration": {"Status": "Enabled"}}
TEMPLATE = {
    "Resources": {
        "Copies": {"Type": "AWS::S3::Bucket", "Properties": VERSIONED},
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "DependsOn": "Copies",
            "Properties": {
                **VERSIONED,
                "ObjectLockEnabled": True,
                "ReplicationConfiguration": {
                    "Role": f"arn:aws:iam::{ACCOUNT}:role/any",
                    "Rules": [
                        {
                            "Id": "Sealed",
                            "Status": "Enabled",
                            "Priority": 1,
                            "Filter": {"Prefix": "sealed/"},
                            "DeleteMarkerReplication": {"Status": "Disabled"},
                            "SourceSelectionCriteria": {"SseKmsEncryptedObjects": {"Status": "Enabled"}},
                            "Destination": {
                                "Bucket": {"Fn::GetAtt": ["Copies", "Arn"]},
                                "EncryptionConfiguration": {
                                    "ReplicaKmsKeyID": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
                                },
                            },
                        }
                    ],
                },
            },
        },
    },
    "Outputs": {name: {"Value": {"Ref": name}} for name in ("Bucket", "Copies")},
}


@dataclass(frozen=True)
class Buckets:
    s3: Any
    bucket: str
    copies: str

    def put(self, key: str, body: bytes = b"weights", **how: Any) -> dict[str, str]:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **how)
        return {"Bucket": self.bucket, "Key": key}


@pytest.fixture(scope="module")
def buckets(account: Account) -> Buckets:
    cloudformation = account.aws.client("cloudformation")
    cloudformation.create_stack(StackName="copies", TemplateBody=json.dumps(TEMPLATE))
    while True:
        stack = cloudformation.describe_stacks(StackName="copies")["Stacks"][0]
        if not stack["StackStatus"].endswith("IN_PROGRESS"):
            break
        time.sleep(0.05)
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    return Buckets(account.aws.client("s3"), outputs["Bucket"], outputs["Copies"])


def until(days: int = 30) -> dt.datetime:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(days=days)).replace(microsecond=0)


def lock(mode: str = "GOVERNANCE", days: int = 30) -> dict[str, Any]:
    return {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until(days)}


def code(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def in_parts(buckets: Buckets, source: dict[str, str], key: str, **how: Any) -> dict[str, str]:
    at, s3 = {"Bucket": buckets.bucket, "Key": key}, buckets.s3
    upload = s3.create_multipart_upload(**at, **how)["UploadId"]
    part = s3.upload_part_copy(**at, UploadId=upload, PartNumber=1, CopySource=source)["CopyPartResult"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(**at, UploadId=upload, MultipartUpload=parts)
    return at


def test_a_template_turns_object_lock_on(buckets: Buckets) -> None:
    found = buckets.s3.get_object_lock_configuration(Bucket=buckets.bucket)["ObjectLockConfiguration"]
    assert found == {"ObjectLockEnabled": "Enabled"}
    missing = code(buckets.s3.get_object_lock_configuration, Bucket=buckets.copies)
    assert missing == "ObjectLockConfigurationNotFoundError"


def test_what_a_rule_names_is_replicated_and_nothing_else_and_no_deletion(buckets: Buckets) -> None:
    sealed, other = buckets.put("sealed/a"), buckets.put("other/a")
    assert buckets.s3.get_object(Bucket=buckets.copies, Key=sealed["Key"])["Body"].read() == b"weights"
    assert code(buckets.s3.get_object, Bucket=buckets.copies, Key=other["Key"]) == "NoSuchKey"
    buckets.s3.delete_object(**sealed)
    assert buckets.s3.head_object(Bucket=buckets.copies, Key=sealed["Key"])["ContentLength"] == 7


def test_a_copy_is_made_once_where_it_says_so(buckets: Buckets) -> None:
    source, target = buckets.put("source/b"), buckets.put("target/b", b"first")
    copy = {"CopySource": source, "IfNoneMatch": "*"}
    assert code(buckets.s3.copy_object, **target, **copy) == "PreconditionFailed"
    assert buckets.s3.get_object(**target)["Body"].read() == b"first"
    buckets.s3.copy_object(Bucket=buckets.bucket, Key="target/c", **copy)


def test_a_copy_has_the_lock_that_it_asks_for_and_not_its_source_s(buckets: Buckets) -> None:
    source, date = buckets.put("source/d", **lock("COMPLIANCE", 3)), until(60)
    at = {"Bucket": buckets.bucket, "Key": "target/d"}
    buckets.s3.copy_object(**at, CopySource=source)
    assert "ObjectLockMode" not in buckets.s3.head_object(**at)
    buckets.s3.copy_object(
        **at, CopySource=source, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=date
    )
    found = buckets.s3.head_object(**at)
    assert (found["ObjectLockMode"], found["ObjectLockRetainUntilDate"]) == ("GOVERNANCE", date)


def test_an_upload_in_parts_has_the_lock_that_it_began_with(buckets: Buckets) -> None:
    source = buckets.put("source/e")
    at = in_parts(buckets, source, "target/e", **lock("COMPLIANCE"))
    assert buckets.s3.head_object(**at)["ObjectLockMode"] == "COMPLIANCE"
    assert "ObjectLockMode" not in buckets.s3.head_object(**in_parts(buckets, source, "target/f"))


@pytest.mark.parametrize(("mode", "bypassed"), [("GOVERNANCE", True), ("COMPLIANCE", False)])
def test_a_locked_version_is_deleted_by_nobody_but_who_bypasses_governance(
    buckets: Buckets, mode: str, bypassed: bool
) -> None:
    at = in_parts(buckets, buckets.put("source/g"), f"target/{mode}", **lock(mode))
    version = at | {"VersionId": buckets.s3.head_object(**at)["VersionId"]}
    assert code(buckets.s3.delete_object, **version) == "AccessDenied"
    if bypassed:
        buckets.s3.delete_object(**version, BypassGovernanceRetention=True)
    else:
        assert code(buckets.s3.delete_object, **version, BypassGovernanceRetention=True) == "AccessDenied"


def test_who_may_only_write_neither_locks_nor_tags_what_they_write(
    account: Account, buckets: Buckets
) -> None:
    allowed = ["s3:PutObject", "s3:GetObject", "s3:ListBucket"]
    s3 = account.role([{"Effect": "Allow", "Action": allowed, "Resource": "*"}]).client("s3")
    source, at = buckets.put("source/i"), {"Bucket": buckets.bucket, "Key": "target/i"}
    hold = {"ObjectLockLegalHoldStatus": "ON"}
    for asked in (lock(), hold, {"Tagging": "a=b", "TaggingDirective": "REPLACE"}):
        assert code(s3.copy_object, **at, CopySource=source, **asked) == "AccessDenied"
    for asked in (lock(), hold, {"Tagging": "a=b"}):
        assert code(s3.put_object, **at, Body=b"", **asked) == "AccessDenied"
        assert code(s3.create_multipart_upload, **at, **asked) == "AccessDenied"
    s3.copy_object(**at, CopySource=source)


def test_a_part_is_copied_into_the_upload_of_its_own_object_only(buckets: Buckets) -> None:
    source = buckets.put("source/h")
    upload = buckets.s3.create_multipart_upload(Bucket=buckets.bucket, Key="sealed/h")["UploadId"]
    elsewhere = {"Bucket": buckets.bucket, "Key": "target/h", "UploadId": upload, "PartNumber": 1}
    assert code(buckets.s3.upload_part_copy, **elsewhere, CopySource=source) == "NoSuchUpload"
    at = {"Bucket": buckets.bucket, "Key": "sealed/h", "UploadId": upload}
    assert "Parts" not in buckets.s3.list_parts(**at)


def test_what_is_missing_is_hidden_from_who_may_not_list(account: Account, buckets: Buckets) -> None:
    get = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
    bucket = f"arn:aws:s3:::{buckets.bucket}"
    listing = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket}
    below = {"s3:prefix": "team/*"}
    missing = {"Bucket": buckets.bucket, "Key": "team/missing"}
    for more, expected in (
        ([], "AccessDenied"),
        ([{**listing, "Condition": {"StringLike": below}}], "AccessDenied"),
        ([{**listing, "Condition": {"StringLikeIfExists": below}}], "NoSuchKey"),
        ([listing], "NoSuchKey"),
    ):
        assert code(account.role([get, *more]).client("s3").get_object, **missing) == expected
