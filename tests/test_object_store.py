"""The session's S3 does what sealing needs: checksums of copies, versions, no copy of a changed source."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tests.object_store import STORE, ObjectStore

CONTENT = b"content" * 2_000_000
PART = 8 * 2**20


def copied(store: ObjectStore, *, threshold: int, etag: str | None = None) -> Any:
    """Copy an object inside the bucket as boto3 does; returns what S3 says of the copy's version."""
    prefix = f"runs/{secrets.token_hex(4)}"
    store.write_model(prefix, {"model.pkl": CONTENT})
    source = {"Bucket": store.bucket, "Key": f"{prefix}/model.pkl"}
    store.client.copy(
        source,
        store.bucket,
        f"{prefix}/copy",
        ExtraArgs={
            "ChecksumAlgorithm": "SHA256",
            "CopySourceIfMatch": etag or store.client.head_object(**source)["ETag"],
        },
        Config=TransferConfig(multipart_threshold=threshold, multipart_chunksize=PART),
    )
    where = {"Bucket": store.bucket, "Key": f"{prefix}/copy", "ChecksumMode": "ENABLED"}
    return store.client.head_object(**where, VersionId=store.client.head_object(**where)["VersionId"])


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_a_copy_has_the_checksum_that_it_asks_for(object_store: ObjectStore) -> None:
    found = copied(object_store, threshold=10 * PART)
    assert found["ChecksumSHA256"] == base64.b64encode(sha256(CONTENT)).decode()
    assert found["ChecksumType"] == "FULL_OBJECT"
    assert "ChecksumCRC32" not in found


def test_a_copy_in_parts_has_the_checksum_of_its_parts(object_store: ObjectStore) -> None:
    found = copied(object_store, threshold=PART)
    parts = sha256(sha256(CONTENT[:PART]) + sha256(CONTENT[PART:]))
    assert found["ChecksumSHA256"] == f"{base64.b64encode(parts).decode()}-2"
    assert found["ChecksumType"] == "COMPOSITE"


@pytest.mark.parametrize("threshold", [PART, 10 * PART])
def test_a_source_that_has_changed_is_not_copied(threshold: int, object_store: ObjectStore) -> None:
    with pytest.raises(ClientError, match="Precondition"):
        copied(object_store, threshold=threshold, etag='"0123456789abcdef0123456789abcdef"')


def test_a_copy_can_be_made_only_where_nothing_is(object_store: ObjectStore) -> None:
    prefix = f"runs/{secrets.token_hex(4)}"
    object_store.write_model(prefix, {"model.pkl": CONTENT})
    where = {"Bucket": object_store.bucket, "Key": f"{prefix}/copy", "IfNoneMatch": "*"}
    source = {"Bucket": object_store.bucket, "Key": f"{prefix}/model.pkl"}
    object_store.client.copy_object(**where, CopySource=source)
    with pytest.raises(ClientError, match="Precondition"):
        object_store.client.copy_object(**where, CopySource=source)


def test_asking_for_the_address_starts_nothing() -> None:
    other = ObjectStore()
    assert other.endpoint != STORE.endpoint
    assert not other._answers()


def test_what_was_written_is_read_again(object_store: ObjectStore) -> None:
    files = {"MLmodel": b"flavors: {}", "data/model.pkl": b"bytes"}
    prefix = f"runs/{secrets.token_hex(4)}"
    assert object_store.write_model(prefix, files) == f"s3://{object_store.bucket}/{prefix}"
    assert object_store.read(prefix) == files
