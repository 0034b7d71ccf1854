"""What S3 keeps of an object that is deleted or changed comes back as it was."""

from __future__ import annotations

import io
from typing import Any

import pytest
from botocore.response import StreamingBody

from operations.errors import FailedError
from operations.versions import read_a_model, restore_an_object
from tests.operations.answers import Scripted


class Bucket:
    """Versions by key, the newest first; None is a delete marker."""

    def __init__(self) -> None:
        self.keys: dict[str, list[tuple[str, bytes | None]]] = {}
        self.made = 0
        self.client = Scripted(
            {
                "put_object": lambda Key, Body, **_: self.add(Key, Body),  # noqa: N803 - the API's
                "delete_object": self.delete,
                "get_object": self.get,
                "list_object_versions": self.listed,
            },
            "s3",
        )

    def add(self, key: str, content: bytes | None) -> dict[str, str]:
        self.made += 1
        self.keys.setdefault(key, []).insert(0, (f"v{self.made}", content))
        return {"VersionId": f"v{self.made}"}

    def delete(self, *, Key: str, VersionId: str = "", **_: Any) -> dict[str, str]:  # noqa: N803
        if not VersionId:
            return self.add(Key, None)
        self.keys[Key] = [each for each in self.keys[Key] if each[0] != VersionId]
        return {}

    def get(self, *, Key: str, VersionId: str = "", **_: Any) -> dict[str, Any]:  # noqa: N803
        content = dict(self.keys[Key])[VersionId] if VersionId else self.keys[Key][0][1]
        assert content is not None
        return {"Body": StreamingBody(io.BytesIO(content), len(content))}

    def listed(self, *, Prefix: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        return {
            "Versions": [
                {"Key": key, "VersionId": version, "Size": len(content), "IsLatest": number == 0}
                for key, versions in self.keys.items()
                if key.startswith(Prefix)
                for number, (version, content) in enumerate(versions)
                if content is not None
            ]
        }


def test_a_deleted_object_comes_back_and_no_version_of_it_stays() -> None:
    bucket = Bucket()
    assert restore_an_object(bucket.client, "artifacts")["bytes"] == 1 << 16
    assert [versions for versions in bucket.keys.values() if versions] == []


def test_a_model_is_read_by_its_versions_deleted_files_too() -> None:
    bucket = Bucket()
    bucket.add("a/model/MLmodel", b"old")
    bucket.add("a/model/MLmodel", b"flavors")
    bucket.add("a/model/model.skops", b"weights")
    bucket.add("a/model/model.skops", None)
    bucket.add("a/model-2/MLmodel", b"another")
    assert read_a_model(bucket.client, "s3://artifacts/a/model") == {"files": 2, "bytes": 14, "deleted": 1}


def test_a_model_without_a_version_is_lost() -> None:
    with pytest.raises(FailedError, match="has no version of any file"):
        read_a_model(Bucket().client, "s3://artifacts/a/model")
