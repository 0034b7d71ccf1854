"""Whether a version's files are what the server sealed, as S3 itself says at that moment.

The server copies a version to a prefix that only it writes, and keeps a manifest of object versions and
checksums beside the copy; its tag `mlflow_aws.seal` holds the manifest's SHA-256. S3 never changes an object
version and computed the checksums itself, so no file is read here. Needs s3:ListBucket and s3:GetObject;
s3:GetObjectVersion, if granted, also tells whether an overwritten or deleted version still exists.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

TAG = "mlflow_aws.seal"
_PARALLEL = 16
# The server seals at most 10,000 files; with keys of 1,024 characters that is half of this.
_LARGEST_MANIFEST = 32 * 1024 * 1024
_MOST_LISTED = 10_000
_UNVERSIONED = "null"

Verdict = Literal["intact", "tampered", "not sealed", "unreadable", "not verified"]


class UnreadableError(Exception):
    """S3 does not answer here; the message says why."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class SealTag(_Record):
    """What the server wrote into the version when it had sealed it."""

    at: str
    bucket: str
    prefix: str
    manifest: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    files: int
    bytes: int
    source: str

    @property
    def location(self) -> str:
        """Where the sealed files are."""
        return f"s3://{self.bucket}/{self.prefix}"

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> SealTag | None:
        """The seal among a version's tags.

        Raises:
            ValueError: there is one, but it cannot be read.
        """
        return cls.model_validate_json(tags[TAG]) if TAG in tags else None


class RecordedFile(_Record):
    """One file of the manifest. `checksum` is S3's own SHA-256, in base64."""

    path: str
    version_id: str
    size: int
    checksum: str
    checksum_type: str
    etag: str


class RecordedManifest(_Record):
    """All files of a version as they were sealed."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    model: str
    version: str
    bucket: str
    prefix: str
    items: tuple[RecordedFile, ...]


@dataclass(frozen=True)
class StoredFile:
    """One file as S3 lists it."""

    path: str
    size: int
    modified: dt.datetime


@dataclass(frozen=True)
class Damage:
    """One file that is not what was sealed."""

    path: str
    what: str
    expected_version_id: str = ""
    found_version_id: str = ""
    expected_checksum: str = ""
    found_checksum: str = ""
    when: str = ""
    recoverable: bool | None = None

    def __str__(self) -> str:
        words = f"{self.path} was {self.what}"
        if self.when:
            words += f" at {self.when}"
        if self.expected_version_id:
            words += f" (expected object version {self.expected_version_id}"
            words += f", found {self.found_version_id}" if self.found_version_id else ""
            if self.recoverable is not None:
                words += f"; the sealed version {'still exists' if self.recoverable else 'is gone'}"
            words += ")"
        return words


@dataclass(frozen=True)
class Integrity:
    """What S3 said at `at` about the files that consumers load."""

    verdict: Verdict
    note: str
    at: str
    seal: SealTag | None = None
    files: tuple[RecordedFile, ...] = ()
    damage: tuple[Damage, ...] = ()


def client() -> Any:
    """An S3 client as MLflow's own artifact code makes it."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None,
        config=Config(max_pool_connections=_PARALLEL),
    )


def examine(
    s3: Callable[[], Any],
    tags: Mapping[str, str],
    *,
    model: str,
    version: str,
    created_ms: int,
    served: str,
    verify: bool = True,
) -> Integrity:
    """Compare what consumers load (`served`, MLflow's download URI) with what the server sealed.

    With `verify=False` S3 is not asked.
    """
    at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    try:
        seal = SealTag.of(tags)
    except ValueError:
        return Integrity("tampered", f"the tag {TAG} is not a seal", at)
    if seal is None:
        return Integrity("not sealed", "not sealed: nothing keeps the files as they are", at)
    if served.rstrip("/") != seal.location:
        note = f"consumers load {served}, but what was sealed is {seal.location}"
        return Integrity("tampered", note, at, seal)
    if not verify:
        return Integrity("not verified", "S3 was not asked", at, seal)
    try:
        return _compared(s3(), seal, model, version, created_ms, at)
    except UnreadableError as error:
        return Integrity("unreadable", str(error), at, seal)
    except (BotoCoreError, ClientError) as error:
        return Integrity("unreadable", f"{seal.location} cannot be read here: {error}", at, seal)


def stored(s3: Callable[[], Any], uri: str) -> tuple[StoredFile, ...]:
    """The files below `uri`, as S3 lists them.

    Raises:
        UnreadableError: it is not in S3, or may not be listed here.
    """
    bucket, prefix = _location(uri)
    try:
        return tuple(islice(_objects(s3(), bucket, prefix), _MOST_LISTED))
    except (BotoCoreError, ClientError) as error:
        raise UnreadableError(f"{uri} cannot be listed here: {error}") from error


def beginning(s3: Callable[[], Any], uri: str, *, limit: int) -> bytes:
    """The first `limit` bytes of a file in S3; none if there is no such file or it cannot be read."""
    try:
        bucket, key = _location(uri)
        answer = s3().get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{limit - 1}")
        return bytes(answer["Body"].read(limit))
    except (UnreadableError, BotoCoreError, ClientError):
        return b""


def _location(uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise UnreadableError(f"{uri} is not in S3")
    return bucket, key.strip("/")


def _compared(s3: Any, seal: SealTag, model: str, version: str, created_ms: int, at: str) -> Integrity:
    content = _content(s3, seal)
    if content is None:
        return Integrity("tampered", f"the manifest {seal.manifest} is gone", at, seal)
    if hashlib.sha256(content).hexdigest() != seal.sha256:
        return Integrity("tampered", f"the manifest {seal.manifest} is not the one that was sealed", at, seal)
    try:
        manifest = RecordedManifest.model_validate_json(content)
    except ValidationError:
        return Integrity("tampered", f"the manifest {seal.manifest} cannot be read as one", at, seal)
    said = (manifest.version, manifest.bucket, manifest.prefix)
    # A model can be renamed; the number and the time of creation, which are in the prefix, stay.
    same = re.search(rf"/{version}/{created_ms}(-[0-9]+)?$", manifest.prefix)
    if said != (version, seal.bucket, seal.prefix) or (manifest.model != model and not same):
        note = f"the seal is that of version {manifest.version} of {manifest.model}"
        return Integrity("tampered", note, at, seal)
    damage = tuple(_damage(s3, seal, manifest.items))
    files, size = len(manifest.items), sum(item.size for item in manifest.items)
    if damage:
        note = f"{len(damage)} files are not as sealed, of {files}"
        return Integrity("tampered", note, at, seal, manifest.items, damage)
    note = f"{files} files, {size:,} bytes: object versions and SHA-256 as sealed, says S3"
    if manifest.model != model:
        note += f"; sealed when the model's name was {manifest.model}"
    return Integrity("intact", note, at, seal, manifest.items)


def _content(s3: Any, seal: SealTag) -> bytes | None:
    try:
        answer = s3.get_object(Bucket=seal.bucket, Key=seal.manifest)
    except ClientError as error:
        if _gone(s3, seal.bucket, seal.manifest, error):
            return None
        raise
    return bytes(answer["Body"].read(_LARGEST_MANIFEST))


def _damage(s3: Any, seal: SealTag, items: tuple[RecordedFile, ...]) -> Iterator[Damage]:
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for damage in pool.map(lambda item: _look(s3, seal, item), items):
            if damage is not None:
                yield damage
    known = {item.path for item in items}
    for found in _objects(s3, seal.bucket, seal.prefix):
        if found.path not in known:
            yield Damage(found.path, "added", when=_time(found.modified))


def _look(s3: Any, seal: SealTag, item: RecordedFile) -> Damage | None:
    key = f"{seal.prefix}/{item.path}"
    try:
        found = s3.head_object(Bucket=seal.bucket, Key=key, ChecksumMode="ENABLED")
    except ClientError as error:
        if not _gone(s3, seal.bucket, key, error):
            raise
        # S3 tells the delete marker's id, and its time, in the headers of its 404.
        headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
        what, marker = "deleted", headers.get("x-amz-version-id", "")
        checksum, when = "", headers.get("last-modified", "")
    else:
        marker, checksum = found.get("VersionId", _UNVERSIONED), found.get("ChecksumSHA256", "")
        when = _time(found["LastModified"])
        if marker == item.version_id and not checksum:
            raise UnreadableError(f"S3 does not tell the checksum of {key}; may this role use its key?")
        if (marker, checksum, found["ContentLength"]) == (item.version_id, item.checksum, item.size):
            return None
        what = "overwritten" if checksum != item.checksum else "written again with the same content"
    return Damage(
        item.path,
        what,
        item.version_id,
        marker,
        item.checksum,
        checksum,
        when,
        _still_there(s3, seal.bucket, key, item.version_id),
    )


def _gone(s3: Any, bucket: str, key: str, error: ClientError) -> bool:
    """Whether S3 refused because there is no such object.

    It answers 403 to a role that may list a part of the bucket only, as those of this deployment may.
    """
    if _status(error) == 403:
        found = s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", ())
        return all(each["Key"] != key for each in found)
    return _status(error) == 404


def _still_there(s3: Any, bucket: str, key: str, version_id: str) -> bool | None:
    if version_id == _UNVERSIONED:
        return None
    try:
        s3.head_object(Bucket=bucket, Key=key, VersionId=version_id)
    except ClientError as error:
        return False if _status(error) == 404 else None
    return True


def _objects(s3: Any, bucket: str, prefix: str) -> Iterator[StoredFile]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for found in page.get("Contents", ()):
            yield StoredFile(found["Key"].removeprefix(f"{prefix}/"), found["Size"], found["LastModified"])


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _time(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="seconds")
