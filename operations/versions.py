"""Reads and restores former versions of S3's objects: what a drill does with one object and one model."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any
from urllib.parse import urlsplit

from operations.errors import FailedError


def restore_an_object(s3: Any, bucket: str) -> dict[str, object]:
    """Write an object, delete it, restore it from its version, compare, and remove every version of it.

    Raises:
        FailedError: what came back is not what was written.
    """
    key, content = f"drill/{secrets.token_hex(8)}", secrets.token_bytes(1 << 16)
    version = s3.put_object(Bucket=bucket, Key=key, Body=content)["VersionId"]
    try:
        marker = s3.delete_object(Bucket=bucket, Key=key)["VersionId"]
        # What is newest then is what the marker hid.
        s3.delete_object(Bucket=bucket, Key=key, VersionId=marker)
        came_back = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    finally:
        s3.delete_object(Bucket=bucket, Key=key, VersionId=version)
    if came_back != content:
        raise FailedError(
            f"s3://{bucket}/{key} came back with other content: look at the bucket's versioning"
        )
    return {"key": key, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def read_a_model(s3: Any, uri: str) -> dict[str, object]:
    """Read every file below a URI by its newest version, deleted or not, and compare with what lives there.

    Raises:
        FailedError: there is no file, or one differs.
    """
    place = urlsplit(uri)
    bucket, prefix = place.netloc, f"{place.path.strip('/')}/"
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    newest: dict[str, dict[str, Any]] = {}
    for each in (each for page in pages for each in page.get("Versions", [])):
        # Those of a key come newest first.
        newest.setdefault(each["Key"], each)
    if not newest:
        raise FailedError(f"{uri} has no version of any file: restore it from AWS Backup or its replica")
    read, deleted = 0, 0
    for key, version in newest.items():
        restored = _digest(s3, Bucket=bucket, Key=key, VersionId=version["VersionId"])
        read += version["Size"]
        if not version["IsLatest"]:
            deleted += 1
        elif restored != _digest(s3, Bucket=bucket, Key=key):
            raise FailedError(f"s3://{bucket}/{key} differs from its version {version['VersionId']}")
    return {"files": len(newest), "bytes": read, "deleted": deleted}


def _digest(s3: Any, **what: str) -> str:
    # With its checksum, which the client compares with what it reads.
    body = s3.get_object(**what, ChecksumMode="ENABLED")["Body"]
    digest = hashlib.sha256()
    for chunk in body.iter_chunks(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
