"""What was sealed: the manifest beside the copies, and the tag on the version that names it by its digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

SEAL_TAG = "mlflow_aws.seal"
"""Name of the tag that holds a version's `Seal`."""

FORMER_SEAL_TAG = "mlflow_aws.former_seal"
"""Name of the tag that holds the `Seal` of a version that was relocated: what its next seal has to equal."""

SCHEMA = 1

# A field of `Seal` has the name of the type.
_Bytes = bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    """One sealed file, as S3 describes it."""

    path: str
    version_id: str
    size: int
    checksum: str
    """SHA-256, in S3's base64."""
    checksum_type: str
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SealManifest:
    """Every file of one sealed version."""

    model: str
    version: str
    bucket: str
    prefix: str
    source: str
    sealed_at: str
    items: tuple[SealedFile, ...]

    def write(self) -> bytes:
        """Canonical JSON: the same manifest is always the same bytes."""
        items = sorted(map(asdict, self.items), key=lambda item: str(item["path"]))
        return _canonical({**asdict(self), "schema": SCHEMA, "items": items})

    @classmethod
    def read(cls, raw: bytes) -> SealManifest:
        """Read what `write` wrote."""
        document = json.loads(raw)
        del document["schema"]
        return cls(**{**document, "items": tuple(SealedFile(**item) for item in document["items"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The tag on a version: where its sealed copy is, and what the manifest of it digests to."""

    at: str
    bucket: str
    prefix: str
    manifest: str
    """Key of the manifest's object."""
    sha256: str
    """Of the manifest's bytes, in hex."""
    files: int
    source: str
    bytes: int

    @classmethod
    def of(cls, manifest: SealManifest, raw: _Bytes, *, key: str) -> Seal:
        """The seal of a manifest, stored as `raw` under `key`."""
        return cls(
            at=manifest.sealed_at,
            bucket=manifest.bucket,
            prefix=manifest.prefix,
            manifest=key,
            sha256=hashlib.sha256(raw).hexdigest(),
            files=len(manifest.items),
            bytes=sum(item.size for item in manifest.items),
            source=manifest.source,
        )

    @classmethod
    def read(cls, tag: str) -> Seal:
        """Read the tag's value, which only this server writes."""
        return cls(**json.loads(tag))

    def write(self) -> str:
        """The tag's value."""
        return _canonical(asdict(self)).decode("ascii")

    @property
    def location(self) -> str:
        """Where clients load the version from."""
        return f"s3://{self.bucket}/{self.prefix}"

    def relocated(self, old: str, new: str) -> Seal | None:
        """The seal with its places below `old` now below `new`; None if it was not sealed below `old`."""

        def moved(uri: str) -> str:
            below = f"{uri}/".startswith(f"{old.rstrip('/')}/")
            return f"{new.rstrip('/')}{uri[len(old.rstrip('/')) :]}" if below else uri

        if (location := moved(self.location)) == self.location:
            return None
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        manifest = moved(f"s3://{self.bucket}/{self.manifest}").removeprefix(f"s3://{bucket}/")
        return replace(self, bucket=bucket, prefix=prefix, manifest=manifest, source=moved(self.source))


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
