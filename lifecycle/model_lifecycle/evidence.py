"""The manifest of a model's files: which S3 object versions they are, and what is in them.

S3 never changes an object version: an overwritten or deleted object shows as another version id, and its
content as another SHA-256. Needs s3:ListBucket and s3:GetObject on the artifacts; s3:GetObjectVersion, if
granted, also tells whether an overwritten or deleted version still exists.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self
from urllib.parse import urlsplit

TAG = "lifecycle.manifest"
# MLflow takes 100,000 characters in a tag of a model version (mlflow/utils/validation.py).
_TAG_CHARACTERS = 90_000
_BLOCK = 1024 * 1024
_UNVERSIONED = "null"


class UnreadableError(Exception):
    """The artifacts cannot be read here; the message says why."""


@dataclass(frozen=True)
class Item:
    """One file: its path below the manifest's location, the object version, and its content."""

    path: str
    version_id: str
    sha256: str
    etag: str
    size: int
    modified: str


@dataclass(frozen=True)
class Manifest:
    """All files of a model at one moment."""

    bucket: str
    prefix: str
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest's canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, items by path."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        raw = json.loads(text)
        return cls(raw["bucket"], raw["prefix"], tuple(Item(**item) for item in raw["items"]))

    def to_tags(self) -> dict[str, str]:
        """Tags that hold it: one, or several numbered ones for a model of very many files."""
        text = self.to_json()
        parts = [text[start : start + _TAG_CHARACTERS] for start in range(0, len(text), _TAG_CHARACTERS)]
        return {TAG if n == 0 else f"{TAG}.{n}": part for n, part in enumerate(parts)}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """The manifest in a version's tags, or None."""
        if TAG not in tags:
            return None
        text, number = tags[TAG], 1
        while f"{TAG}.{number}" in tags:
            text, number = text + tags[f"{TAG}.{number}"], number + 1
        return cls.from_json(text)


@dataclass(frozen=True)
class Damage:
    """One file that is not what was recorded."""

    path: str
    what: str
    expected_version_id: str
    found_version_id: str
    expected_sha256: str
    found_sha256: str
    when: str
    recoverable: bool | None

    def __str__(self) -> str:
        words = f"{self.path} was {self.what}"
        if self.when:
            words += f" at {self.when}"
        if self.expected_version_id:
            words += f" (expected object version {self.expected_version_id}"
            words += f", found {self.found_version_id}" if self.found_version_id else ""
            if self.recoverable is not None:
                words += f"; the recorded version {'still exists' if self.recoverable else 'is gone'}"
            words += ")"
        return words


def client() -> Any:
    """An S3 client as MLflow's own artifact code makes it."""
    import boto3

    return boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)


def record(s3: Any, uri: str) -> Manifest:
    """Read every object below `uri` (`s3://bucket/prefix`) once.

    Raises:
        UnreadableError: it is not in S3, may not be read, or holds nothing.
    """
    bucket, prefix = _location(uri)
    with _readable(uri):
        items = tuple(_read(s3, bucket, prefix, path) for path in sorted(_paths(s3, bucket, prefix)))
    if not items:
        raise UnreadableError(f"{uri} holds no objects")
    return Manifest(bucket, prefix, items)


def verify(s3: Any, manifest: Manifest) -> tuple[Damage, ...]:
    """Read every object again and compare; also names files that were added.

    Raises:
        UnreadableError: the artifacts may not be read here.
    """
    bucket, prefix = manifest.bucket, manifest.prefix
    with _readable(f"s3://{bucket}/{prefix}"):
        present = set(_paths(s3, bucket, prefix))
        damage = []
        for item in manifest.items:
            found = _read(s3, bucket, prefix, item.path) if item.path in present else None
            if found is None:
                damage.append(_deleted(s3, bucket, prefix, item))
            elif (found.version_id, found.sha256) != (item.version_id, item.sha256):
                damage.append(_overwritten(s3, bucket, prefix, item, found))
        for path in sorted(present - {item.path for item in manifest.items}):
            found = _read(s3, bucket, prefix, path)
            damage.append(
                Damage(
                    path, "added", "", found.version_id, "", found.sha256, found.modified, recoverable=None
                )
            )
    return tuple(damage)


def written_after(manifest: Manifest, moment: dt.datetime) -> tuple[str, ...]:
    """Files whose recorded object version is younger than `moment`.

    A manifest is a tag, which a contributor can write again; S3's own time of an object version and the
    server's time of a promotion cannot be written by anybody.
    """
    return tuple(item.path for item in manifest.items if dt.datetime.fromisoformat(item.modified) > moment)


def _location(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise UnreadableError(f"{uri} is not in S3, so there are no object versions to record")
    return parts.netloc, parts.path.strip("/")


def _paths(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for found in page.get("Contents", ()):
            yield found["Key"].removeprefix(f"{prefix}/")


def _read(s3: Any, bucket: str, prefix: str, path: str) -> Item:
    answer = s3.get_object(Bucket=bucket, Key=f"{prefix}/{path}")
    digest, size = hashlib.sha256(), 0
    for block in answer["Body"].iter_chunks(_BLOCK):
        digest.update(block)
        size += len(block)
    return Item(
        path=path,
        version_id=answer.get("VersionId", _UNVERSIONED),
        sha256=digest.hexdigest(),
        etag=answer["ETag"].strip('"'),
        size=size,
        modified=answer["LastModified"].astimezone(dt.UTC).isoformat(timespec="seconds"),
    )


def _overwritten(s3: Any, bucket: str, prefix: str, item: Item, found: Item) -> Damage:
    what = "overwritten" if found.sha256 != item.sha256 else "written again with the same content"
    return Damage(
        item.path,
        what,
        item.version_id,
        found.version_id,
        item.sha256,
        found.sha256,
        found.modified,
        _still_there(s3, bucket, f"{prefix}/{item.path}", item.version_id),
    )


def _deleted(s3: Any, bucket: str, prefix: str, item: Item) -> Damage:
    from botocore.exceptions import ClientError

    key, marker, when = f"{prefix}/{item.path}", "", ""
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        # S3 answers 404 with the delete marker's id, and its time, in the headers.
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        marker, when = headers.get("x-amz-version-id", ""), headers.get("last-modified", "")
    return Damage(
        item.path,
        "deleted",
        item.version_id,
        marker,
        item.sha256,
        "",
        when,
        _still_there(s3, bucket, key, item.version_id),
    )


def _still_there(s3: Any, bucket: str, key: str, version_id: str) -> bool | None:
    from botocore.exceptions import ClientError

    if version_id == _UNVERSIONED:
        return None
    try:
        s3.head_object(Bucket=bucket, Key=key, VersionId=version_id)
    except ClientError as error:
        return False if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404 else None
    return True


class _readable:  # noqa: N801 - reads as a phrase where it is used
    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, BotoCoreError | ClientError):
            raise UnreadableError(f"{self._uri} cannot be read here: {error}") from error


def totals(items: Sequence[Item]) -> tuple[int, int]:
    """Number of files and of bytes."""
    return len(items), sum(item.size for item in items)
