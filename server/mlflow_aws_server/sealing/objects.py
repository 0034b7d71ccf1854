"""The few requests to S3 that sealing makes: list, look, copy, and write a manifest. Blocking."""

from __future__ import annotations

import datetime as dt
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from mlflow_aws_server.sealing.errors import DelayedError, SourceChangedError
from mlflow_aws_server.sealing.manifest import SealedFile
from mlflow_aws_server.sealing.places import Prefix
from mlflow_aws_server.settings import ObjectLock

LARGEST_AT_ONCE = 5 * 2**30
"""In bytes; S3 copies larger objects only in parts."""

PART = 512 * 2**20

# Of the copy's metadata: which content of the source it is a copy of.
_SOURCE_ETAG = "source-etag"
_CHANGED = frozenset(("PreconditionFailed", "NoSuchKey", "404"))
_NOT_FOUND = frozenset(("NoSuchKey", "404"))
_DAYS_PER_YEAR = 365


@dataclass(frozen=True, slots=True)
class File:
    """One file of a source, at the time it was listed."""

    path: str
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Copy:
    """One sealed file, and the content of which it is a copy."""

    item: SealedFile
    source_etag: str


class Objects:
    """The objects of the artifact bucket."""

    def __init__(
        self,
        client: Any,
        bucket: str,
        *,
        lock: ObjectLock | None,
        largest_at_once: int = LARGEST_AT_ONCE,
        part: int = PART,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._lock = lock
        self._largest_at_once = largest_at_once
        self._part = part

    def files(self, prefix: Prefix) -> Iterator[File]:
        """Everything in a prefix, by path; folders that the console made are left out."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix.inside
        )
        for page in pages:
            for found in page.get("Contents", ()):
                if not found["Key"].endswith("/"):
                    path = found["Key"].removeprefix(prefix.inside)
                    yield File(path, found["ETag"].strip('"'), found["Size"])

    def look(self, prefix: Prefix, path: str) -> Copy | None:
        """The sealed file, as S3 describes it; None if there is none."""
        try:
            found = self._client.head_object(
                Bucket=self._bucket, Key=prefix.inside + path, ChecksumMode="ENABLED"
            )
        except ClientError as error:
            if _code(error) in _NOT_FOUND:
                return None
            raise
        checksum = found.get("ChecksumSHA256")
        if checksum is None:
            raise DelayedError(f"S3 has no SHA-256 checksum of {prefix.inside + path}")
        item = SealedFile(
            path=path,
            version_id=found.get("VersionId", "null"),
            size=found["ContentLength"],
            checksum=checksum,
            checksum_type=found.get("ChecksumType", "COMPOSITE" if "-" in checksum else "FULL_OBJECT"),
            etag=found["ETag"].strip('"'),
        )
        return Copy(item, found["Metadata"].get(_SOURCE_ETAG, ""))

    def needs_parts(self, file: File) -> bool:
        """Whether S3 copies the file only in parts."""
        return file.size > self._largest_at_once

    def copy(self, file: File, source: Prefix, target: Prefix) -> SealedFile:
        """Copy a file, once: what is there already is never written over.

        Raises:
            SourceChangedError: the source is not what was listed.
        """
        where = {"Bucket": self._bucket, "Key": target.inside + file.path}
        origin = {
            "CopySource": {"Bucket": self._bucket, "Key": source.inside + file.path},
            "CopySourceIfMatch": file.etag,
        }
        try:
            if not self.needs_parts(file):
                self._client.copy_object(
                    **where, **origin, **self._attributes(file), IfNoneMatch="*", ChecksumAlgorithm="SHA256",
                    # Those of the source are copied only by who may read them too.
                    MetadataDirective="REPLACE", TaggingDirective="REPLACE", AnnotationDirective="EXCLUDE",
                )  # fmt: skip
            else:
                self._copy_in_parts(file, where, origin)
        except ClientError as error:
            if _code(error) not in _CHANGED:
                raise
        copy = self.look(target, file.path)
        if copy is None or copy.source_etag != file.etag:
            raise SourceChangedError(file.path)
        return copy.item

    def _copy_in_parts(self, file: File, where: dict[str, str], origin: dict[str, Any]) -> None:
        upload = self._client.create_multipart_upload(
            **where, **self._attributes(file), ChecksumAlgorithm="SHA256"
        )["UploadId"]
        try:
            parts = []
            for number, first in enumerate(range(0, file.size, self._part), start=1):
                last = min(first + self._part, file.size) - 1
                part = self._client.upload_part_copy(
                    **where, **origin, UploadId=upload, PartNumber=number,
                    CopySourceRange=f"bytes={first}-{last}",
                )["CopyPartResult"]  # fmt: skip
                parts.append(
                    {"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}
                )
            self._client.complete_multipart_upload(
                **where, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
            )
        except BaseException:
            self._client.abort_multipart_upload(**where, UploadId=upload)
            raise

    def abort_uploads(self, place: Prefix) -> None:
        """Forget what a server that ended has begun to copy in parts."""
        begun = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=place.key)
        for upload in begun.get("Uploads", ()):
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )

    def manifest(self, key: str) -> bytes | None:
        """A manifest that was written, if any."""
        try:
            body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except ClientError as error:
            if _code(error) in _NOT_FOUND:
                return None
            raise
        return body

    def write_manifest(self, key: str, raw: bytes) -> None:
        """Write a manifest, once."""
        self._client.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=raw,
            ContentType="application/json",
            ChecksumAlgorithm="SHA256",
            IfNoneMatch="*",
            **self._retention(),
        )

    def _attributes(self, file: File) -> dict[str, Any]:
        # As MLflow's clients upload it.
        kind, encoding = mimetypes.guess_type(file.path)
        return {
            "Metadata": {_SOURCE_ETAG: file.etag},
            **({"ContentType": kind} if kind else {}),
            **({"ContentEncoding": encoding} if encoding else {}),
            **self._retention(),
        }

    def _retention(self) -> dict[str, Any]:
        if self._lock is None:
            return {}
        until = dt.datetime.now(dt.UTC) + dt.timedelta(days=_DAYS_PER_YEAR * self._lock.years)
        return {"ObjectLockMode": self._lock.mode.upper(), "ObjectLockRetainUntilDate": until}


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
