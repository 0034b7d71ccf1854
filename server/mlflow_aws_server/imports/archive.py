"""The archive of a source: gzip'd PostgreSQL COPY text in S3, and a manifest that names every part."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from mlflow_aws_server.errors import OperationError

PLACE = "imports"
"""Under the artifact root: where archives are."""

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of rows of one table."""

    file: str
    table: str
    columns: tuple[str, ...]
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Everything that was read from one source."""

    source: str
    """The source's name: the same in each import of it."""
    suffix: str
    """What a name gets that is taken here."""
    revision: str
    roots: Mapping[str, str]
    """Where artifacts were, and where they are now."""
    left_out: Mapping[str, int]
    """Rows of tables that were not read, such as secrets."""
    parts: tuple[Part, ...]

    @classmethod
    def read(cls, client: Any, bucket: str, prefix: str, *, sha256: str) -> Archive:
        """Read the manifest below `prefix`, where others may write too: by its digest, it is the right one.

        Raises:
            OperationError: there is none, or another one.
        """
        key = f"{prefix}manifest.json"
        try:
            raw = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            raise OperationError(f"s3://{bucket}/{key} cannot be read: {error}") from error
        manifest = json.loads(raw) if hashlib.sha256(raw).hexdigest() == sha256 else {}
        if manifest.get("format") != FORMAT or not manifest.get("complete"):
            raise OperationError(
                f"s3://{bucket}/{key} is not the complete archive of format {FORMAT} that was asked for. Run "
                "`make import` of this version again."
            )
        parts = tuple(
            Part(
                file=part["file"],
                table=part["table"],
                columns=tuple(part["columns"]),
                rows=part["rows"],
                sha256=part["sha256"],
            )
            for part in manifest["parts"]
        )
        return cls(
            source=manifest["source"],
            suffix=manifest["suffix"],
            revision=manifest["revision"],
            roots=manifest["roots"],
            left_out=manifest["left_out"],
            parts=parts,
        )


@contextmanager
def rows(client: Any, bucket: str, prefix: str, part: Part) -> Iterator[io.BufferedIOBase]:
    """The COPY text of a part, as a file; what was read is compared with the manifest.

    Raises:
        OperationError: the object is not what the manifest says.
    """
    body = _Digested(client.get_object(Bucket=bucket, Key=f"{prefix}{part.file}")["Body"])
    with gzip.open(io.BufferedReader(body, 1 << 20)) as text:
        yield text
    if body.sha256.hexdigest() != part.sha256:
        raise OperationError(
            f"s3://{bucket}/{prefix}{part.file} is not what its manifest says. Run `make import` again."
        )


class _Digested(io.RawIOBase):
    """A body of S3 as a file that is read once, with the digest of what was read."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._body.read(len(buffer))
        self.sha256.update(data)
        buffer[: len(data)] = data
        return len(data)
