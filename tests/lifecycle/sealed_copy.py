"""A sealed version in S3 as the server leaves it, for tests of what a client makes of it."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_lifecycle import evidence
from model_lifecycle.evidence import Integrity

from tests.object_store import ObjectStore

CREATED_MS = 1_767_225_600_000
FILES = {"MLmodel": b"flavors: {}", "code/model.py": b"print()"}


@dataclass
class SealedCopy:
    """The files, the manifest and the tag of one version."""

    store: ObjectStore
    model: str
    prefix: str
    tags: dict[str, str]

    @property
    def served(self) -> str:
        return f"s3://{self.store.bucket}/{self.prefix}"

    def write(self, path: str, content: bytes) -> str:
        """As a client with too many permissions could; returns the object version's id."""
        key = f"{self.prefix}/{path}"
        answer = self.store.client.put_object(
            Bucket=self.store.bucket, Key=key, Body=content, ChecksumAlgorithm="SHA256"
        )
        return str(answer["VersionId"])

    def delete(self, path: str) -> str:
        answer = self.store.client.delete_object(Bucket=self.store.bucket, Key=f"{self.prefix}/{path}")
        return str(answer["VersionId"])

    def examined(self, **changed: Any) -> Integrity:
        asked: dict[str, Any] = {
            "model": self.model,
            "version": "1",
            "created_ms": CREATED_MS,
            "served": self.served,
        }
        return evidence.examine(lambda: self.store.client, self.tags, **(asked | changed))


def seal(store: ObjectStore, files: Mapping[str, bytes] = FILES, *, model: str = "") -> SealedCopy:
    """Do the server's part: copies with checksums, the manifest beside them, and the tag."""
    model = model or f"model-{secrets.token_hex(4)}"
    made = SealedCopy(store, model, f"runs/sealed/{model}/1/{CREATED_MS}", {})
    items = []
    for path, content in sorted(files.items()):
        made.write(path, content)
        found = store.client.head_object(
            Bucket=store.bucket, Key=f"{made.prefix}/{path}", ChecksumMode="ENABLED"
        )
        items.append(
            {
                "path": path,
                "version_id": found["VersionId"],
                "size": found["ContentLength"],
                "checksum": found["ChecksumSHA256"],
                "checksum_type": "FULL_OBJECT",
                "etag": found["ETag"],
            }
        )
    place = {"bucket": store.bucket, "prefix": made.prefix, "source": f"s3://{store.bucket}/runs/1"}
    at = "2026-01-01T00:00:00.000000+00:00"
    manifest = {"schema": 1, "model": model, "version": "1", **place, "sealed_at": at, "items": items}
    raw = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    key = f"{made.prefix}.manifest.json"
    store.client.put_object(Bucket=store.bucket, Key=key, Body=raw)
    tag = {
        "at": at,
        **place,
        "manifest": key,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "files": len(items),
        "bytes": sum(map(len, files.values())),
    }
    made.tags[evidence.TAG] = json.dumps(tag)
    return made
