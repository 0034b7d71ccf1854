"""The objects of deleted things in S3: list, look for legal holds, mark as deleted. Blocking."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from mlflow_aws_server.sealing.manifest import SealManifest
from mlflow_aws_server.sealing.places import Prefix, Root

THREADS = 16

_AT_ONCE = 1000
_NO_HOLD = frozenset(("NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "NoSuchKey"))

Item = TypeVar("Item")
Result = TypeVar("Result")


class ObjectsError(RuntimeError):
    """S3 refused; the message says what, and what to do."""


@dataclass(frozen=True, slots=True)
class CurrentObject:
    """A current object."""

    key: str
    size: int


class CurrentObjects:
    """The current objects below the artifact root, but for what is sealed."""

    def __init__(self, client: Any, root: Root, *, holds: bool) -> None:
        """`holds`: the bucket has Object Lock, so that an object may be under legal hold."""
        self._client, self._root, self._holds = client, root, holds
        self._bucket = root.prefix.bucket

    def place(self, uri: str | None, own: str) -> Prefix | None:
        """The place of a thing with the id `own`; None if that is not below the root, or not its own.

        Only a folder that its id names can hold nothing of others.
        """
        place = Prefix.read(uri or "")
        if place is None or not self._root.prefix.holds(place):
            return None
        if own not in place.inside.removeprefix(self._root.prefix.inside).split("/"):
            return None
        if place.holds(self._root.sealed) or self._root.sealed.holds(place):
            return None
        return place

    def below(self, place: Prefix) -> list[CurrentObject]:
        """What is in a place now."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=place.inside
        )
        return [
            CurrentObject(each["Key"], each["Size"]) for page in pages for each in page.get("Contents", ())
        ]

    def left(self, prefixes: Iterable[str]) -> str | None:
        """Of what lies below these keys, one version or delete marker that is still there, if any is."""
        for prefix in prefixes:
            found = self._client.list_object_versions(Bucket=self._bucket, Prefix=prefix, MaxKeys=1)
            for each in (*found.get("Versions", ()), *found.get("DeleteMarkers", ())):
                return str(each["Key"])
        return None

    def sealed_copies(self) -> dict[str, str]:
        """What each sealed copy was made from, by the key that all of the copy begins with.

        Only by its place is a manifest one: a model's own files lie deeper, and may be called anything.
        """
        inside = self._root.sealed.inside
        manifest = re.compile(rf"({re.escape(inside)}[^/]+/\d+/\d+)(-\d+)?\.manifest\.json")
        keys = [each.key for each in self.below(self._root.sealed) if manifest.fullmatch(each.key)]
        sources = each_of(lambda key: SealManifest.read(self.read(key)).source, keys)
        return dict(zip((key.removesuffix(".manifest.json") for key in keys), sources, strict=True))

    def read(self, key: str) -> bytes:
        """A small object."""
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body

    def held(self, found: Iterable[CurrentObject]) -> str | None:
        """The key of one that is under legal hold, if any is."""
        if not self._holds:
            return None
        keys = [each.key for each in found]
        return next((key for key, on in zip(keys, each_of(self._on_hold, keys), strict=True) if on), None)

    def delete(self, found: Iterable[CurrentObject]) -> None:
        """Mark them as deleted; their bytes go when the bucket's lifecycle expires them.

        Raises:
            ObjectsError: S3 refused one.
        """
        entries = [{"Key": each.key} for each in found]
        requests = [entries[first : first + _AT_ONCE] for first in range(0, len(entries), _AT_ONCE)]
        for answer in each_of(self._delete, requests):
            for error in answer.get("Errors", ()):
                raise ObjectsError(
                    f"S3 did not delete {error['Key']}: {error['Code']}: {error.get('Message', '')}. Look at "
                    "the policy of the task's role and of the bucket, and run it again"
                )

    def _delete(self, entries: Sequence[dict[str, str]]) -> Any:
        return self._client.delete_objects(
            Bucket=self._bucket, Delete={"Objects": list(entries), "Quiet": True}
        )

    def _on_hold(self, key: str) -> bool:
        try:
            answer = self._client.get_object_legal_hold(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in _NO_HOLD:
                return False
            raise
        return bool(answer["LegalHold"]["Status"] == "ON")


def each_of(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The work's results for these, in order, from several threads."""
    with ThreadPoolExecutor(THREADS) as threads:
        yield from threads.map(work, items)
