"""What is sealed: every write and delete that S3 has, asked by every role, in the account that enforces.

Only the server writes there, and nobody deletes; the server writes nowhere else.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.parts.aws import Aws
from stacks.roles import BY_NAME as ROLES
from tests.iam.conftest import PREFIX, SERVER, STRANGER, Deployed, session_with
from tests.iam.test_matrix import DENIALS, Attempt, client_of, raise_first

SEALED = f"{PREFIX}/sealed"
MODEL = f"{PREFIX}/1/models/m-1/artifacts/model.bin"
CLIENTS = (*ROLES, STRANGER)
BYPASS = {"BypassGovernanceRetention": True}
TAGS = {"TagSet": [{"Key": "stage", "Value": "Production"}]}


def until() -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=1)


@dataclass(frozen=True)
class Sealed(Attempt):
    """An attempt on an object below a place, which has two versions."""

    place: str = SEALED

    @functools.cached_property
    def first(self) -> dict[str, str]:
        key, version = self.existing(self.place)
        return {"Bucket": self.bucket, "Key": key, "VersionId": version}

    @functools.cached_property
    def at(self) -> dict[str, str]:
        return {name: self.first[name] for name in ("Bucket", "Key")}

    @property
    def new(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.fresh(self.place)}

    @property
    def source(self) -> dict[str, Any]:
        root = client_of(self.deployed.root, "s3")
        root.put_object(Bucket=self.bucket, Key=MODEL, Body=b"weights")
        return {"CopySource": {"Bucket": self.bucket, "Key": MODEL}}

    @property
    def upload(self) -> str:
        return str(client_of(self.deployed.root, "s3").create_multipart_upload(**self.at)["UploadId"])

    def several(self, target: Mapping[str, str], **how: Any) -> None:
        entry = {name: value for name, value in target.items() if name != "Bucket"}
        raise_first(self.s3.delete_objects(Bucket=self.bucket, Delete={"Objects": [entry]}, **how))


def whole_upload(it: Sealed) -> None:
    upload = it.s3.create_multipart_upload(**it.at)["UploadId"]
    part = it.s3.upload_part(**it.at, UploadId=upload, PartNumber=1, Body=b"bytes")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    it.s3.complete_multipart_upload(**it.at, UploadId=upload, MultipartUpload=parts)


def whole_copy(it: Sealed) -> None:
    upload = it.s3.create_multipart_upload(**it.at)["UploadId"]
    part = it.s3.upload_part_copy(**it.at, UploadId=upload, PartNumber=1, **it.source)["CopyPartResult"]
    assert it.s3.list_parts(**it.at, UploadId=upload)["Parts"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    it.s3.complete_multipart_upload(**it.at, UploadId=upload, MultipartUpload=parts)


Ask = Callable[[Sealed], Any]
WRITES: dict[str, Ask] = {
    "put": lambda it: it.s3.put_object(**it.at, Body=b"other"),
    "put a new one": lambda it: it.s3.put_object(**it.new, Body=b"other"),
    "put if it is missing": lambda it: it.s3.put_object(**it.new, Body=b"other", IfNoneMatch="*"),
    "copy": lambda it: it.s3.copy_object(**it.at, **it.source),
    "copy onto itself": lambda it: it.s3.copy_object(
        **it.at, CopySource=dict(it.at), MetadataDirective="REPLACE", Metadata={"a": "b"}
    ),
    "upload in parts": whole_upload,
    "begin an upload": lambda it: it.s3.create_multipart_upload(**it.at),
    "upload a part": lambda it: it.s3.upload_part(**it.at, UploadId=it.upload, PartNumber=1, Body=b"x"),
    "copy in parts": whole_copy,
    "copy a part": lambda it: it.s3.upload_part_copy(**it.at, UploadId=it.upload, PartNumber=1, **it.source),
    "abort an upload": lambda it: it.s3.abort_multipart_upload(**it.at, UploadId=it.upload),
}
# What the server may not do either.
CHANGES: dict[str, Ask] = {
    "delete": lambda it: it.s3.delete_object(**it.at),
    "delete several": lambda it: it.several(it.at),
    "delete a version": lambda it: it.s3.delete_object(**it.first),
    "delete several versions": lambda it: it.several(it.first),
    "delete a locked version": lambda it: it.s3.delete_object(**it.first, **BYPASS),
    "delete several locked versions": lambda it: it.several(it.first, **BYPASS),
    "tag": lambda it: it.s3.put_object_tagging(**it.at, Tagging=TAGS),
    "tag a version": lambda it: it.s3.put_object_tagging(**it.first, Tagging=TAGS),
    "remove tags": lambda it: it.s3.delete_object_tagging(**it.at),
    "remove a version's tags": lambda it: it.s3.delete_object_tagging(**it.first),
    "open to others": lambda it: it.s3.put_object_acl(**it.at, ACL="public-read"),
    "open a version to others": lambda it: it.s3.put_object_acl(**it.first, ACL="public-read"),
    "shorten a lock": lambda it: it.s3.put_object_retention(
        **it.at, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until()}, **BYPASS
    ),
    "lock": lambda it: it.s3.put_object_retention(
        **it.at, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until()}
    ),
    "hold": lambda it: it.s3.put_object_legal_hold(**it.at, LegalHold={"Status": "ON"}),
    "restore": lambda it: it.s3.restore_object(**it.at, RestoreRequest={"Days": 1}),
}


@pytest.fixture(scope="module")
def everything(deployed: Deployed) -> Aws:
    """Somebody of the account whose own policy allows all of S3, and KMS too: an administrator."""
    return session_with(deployed.root, {"Effect": "Allow", "Action": ["s3:*", "kms:*"], "Resource": "*"})


def refused(ask: Ask, attempt: Sealed) -> None:
    before = versions(attempt)
    with pytest.raises(ClientError) as caught:
        ask(attempt)
    assert caught.value.response["Error"]["Code"] in DENIALS
    assert versions(attempt) == before


def versions(attempt: Sealed) -> list[tuple[str, bool]]:
    """What is there, by the account's root: every version, and markers of deletion."""
    found = attempt.root.s3.list_object_versions(Bucket=attempt.bucket, Prefix=attempt.at["Key"])
    return [
        (each["VersionId"], each["IsLatest"])
        for kind in ("Versions", "DeleteMarkers")
        for each in found.get(kind, [])
    ]


@pytest.mark.parametrize("role", CLIENTS)
@pytest.mark.parametrize("action", [*WRITES, *CHANGES])
def test_no_client_changes_what_is_sealed(role: str, action: str, deployed: Deployed) -> None:
    refused((WRITES | CHANGES)[action], Sealed(deployed, deployed.roles[role]))


@pytest.mark.parametrize("action", [*WRITES, *CHANGES])
def test_the_bucket_refuses_it_to_who_may_do_everything_else(
    action: str, deployed: Deployed, everything: Aws
) -> None:
    refused((WRITES | CHANGES)[action], Sealed(deployed, everything))


@pytest.mark.parametrize("action", WRITES)
def test_the_server_seals(action: str, deployed: Deployed) -> None:
    WRITES[action](Sealed(deployed, deployed.roles[SERVER]))


@pytest.mark.parametrize("action", CHANGES)
def test_the_server_neither_deletes_nor_relabels_what_it_sealed(action: str, deployed: Deployed) -> None:
    refused(CHANGES[action], Sealed(deployed, deployed.roles[SERVER]))


@pytest.fixture
def generous(deployed: Deployed) -> Iterator[Aws]:
    """The server, with a policy that somebody added: all of S3."""
    iam, server = deployed.root.client("iam"), deployed.roles[SERVER]
    role = server.client("sts").get_caller_identity()["Arn"].split("/")[1]
    document = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    more = {"RoleName": role, "PolicyName": "everything"}
    iam.put_role_policy(**more, PolicyDocument=json.dumps({"Version": "2012-10-17", **document}))
    yield server
    iam.delete_role_policy(**more)


@pytest.mark.parametrize("action", [each for each in CHANGES if each.startswith(("delete", "remove"))])
def test_the_bucket_refuses_deletions_to_a_server_that_may_do_everything_else(
    action: str, deployed: Deployed, generous: Aws
) -> None:
    refused(CHANGES[action], Sealed(deployed, generous))


@pytest.mark.parametrize("place", [f"{PREFIX}/1/models", f"{PREFIX}/sealed-too", "sealed", "elsewhere"])
@pytest.mark.parametrize("action", [*WRITES, *CHANGES])
def test_the_server_writes_nowhere_else(action: str, place: str, deployed: Deployed) -> None:
    refused((WRITES | CHANGES)[action], Sealed(deployed, deployed.roles[SERVER], place))


@pytest.mark.parametrize("role", [*ROLES, SERVER])
def test_everybody_with_a_role_reads_what_is_sealed(role: str, deployed: Deployed) -> None:
    attempt = Sealed(deployed, deployed.roles[role])
    assert attempt.s3.get_object(**attempt.at)["Body"].read() == b"second"
    listed = attempt.s3.list_objects_v2(Bucket=attempt.bucket, Prefix=attempt.at["Key"])
    assert [each["Key"] for each in listed["Contents"]] == [attempt.at["Key"]]


def test_the_server_finds_and_ends_what_a_stopped_one_had_begun_to_copy_in_parts(deployed: Deployed) -> None:
    attempt = Sealed(deployed, deployed.roles[SERVER])
    begun = attempt.upload
    found = attempt.s3.list_multipart_uploads(Bucket=attempt.bucket, Prefix=attempt.at["Key"])
    assert [each["UploadId"] for each in found["Uploads"]] == [begun]
    attempt.s3.abort_multipart_upload(**attempt.at, UploadId=begun)


def test_the_server_is_told_that_nothing_is_there(deployed: Deployed) -> None:
    """Not that it may not know: a seal that was interrupted looks for what it had written."""
    attempt = Sealed(deployed, deployed.roles[SERVER])
    for key in (attempt.fresh(SEALED), attempt.fresh()):
        with pytest.raises(ClientError) as missing:
            attempt.s3.get_object(Bucket=attempt.bucket, Key=key)
        assert missing.value.response["Error"]["Code"] == "NoSuchKey"


def test_the_key_is_the_server_s_for_sealing(deployed: Deployed) -> None:
    attempt = Sealed(deployed, deployed.roles[SERVER])
    attempt.s3.copy_object(**attempt.at, **attempt.source)
    assert attempt.s3.head_object(**attempt.at)["SSEKMSKeyId"] == deployed.key_arn


@pytest.mark.parametrize("action", ["put", "copy", "whole", "delete"])
def test_clients_still_write_beside_what_is_sealed(action: str, deployed: Deployed) -> None:
    """Not refused because nothing is: what they are denied there, they may do here."""
    attempt = Sealed(deployed, deployed.roles["contributor"], f"{PREFIX}/1/models")
    (WRITES | CHANGES | {"whole": whole_upload})[action](attempt)
