"""Makes the sealed copy of one version: every file once, and then the manifest."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from mlflow_aws_server.sealing.errors import DelayedError, SourceChangedError, UnsealableError
from mlflow_aws_server.sealing.manifest import Seal, SealedFile, SealManifest
from mlflow_aws_server.sealing.objects import File, Objects
from mlflow_aws_server.sealing.places import Prefix, Root
from mlflow_aws_server.sealing.versions import VersionRow

MOST_FILES = 10_000

_LISTINGS = 3
# Of one version at a time: a large one must not keep a small one waiting.
_AT_ONCE = 8

Given = TypeVar("Given")
Made = TypeVar("Made")
Progress = Callable[[int, int], None]
"""Told how many files of how many are copied."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A place in `sealed/`, and what an interrupted server has left there."""

    target: Prefix
    items: dict[str, SealedFile]
    manifest: bytes | None

    @property
    def key(self) -> str:
        """That of the manifest."""
        return _key_of_manifest(self.target)


class Copier:
    """Copies in threads, since S3's client blocks; the server carries no bytes of them.

    A place in `sealed/` is written once. A copy that was interrupted is continued there, unless the source
    changed meanwhile: then it is begun anew in the place beside it.
    """

    def __init__(self, objects: Objects, root: Root, threads: ThreadPoolExecutor) -> None:
        self._objects = objects
        self._root = root
        self._threads = threads

    async def seal(self, version: VersionRow, locations: Sequence[str], progress: Progress) -> Seal:
        """Copy the files of a version from the first of `locations` that has any.

        Raises:
            UnsealableError: it has no files, too many, or none that may be copied.
            DelayedError: the source kept changing.
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: S3 refused or failed.
        """
        place = self._root.place_of(version.name, version.version, version.creation_time)
        for _ in range(_LISTINGS):
            source, files = await self._listed(version, locations, place)
            try:
                return await self._copied(version, source, files, place, progress)
            except SourceChangedError as changed:
                last = changed
        raise DelayedError(f"files of its source keep changing, such as {last}: stop writing to {source}")

    async def _listed(
        self, version: VersionRow, locations: Sequence[str], place: Prefix
    ) -> tuple[Prefix, dict[str, File]]:
        for location in locations:
            source = self._root.source(location, place)
            found = self._objects.files(source)
            files = await self._run(lambda found: list(itertools.islice(found, MOST_FILES + 1)), found)
            if len(files) > MOST_FILES:
                raise UnsealableError(
                    f"its source {source} holds more than {MOST_FILES} files: register the directory of "
                    "one model"
                )
            if files:
                return source, {file.path: file for file in files}
        where = " or ".join(dict.fromkeys([version.source, *locations]))
        raise UnsealableError(
            f"there is no file under {where}: log the model first, and register the directory that holds it"
        )

    async def _copied(
        self,
        version: VersionRow,
        source: Prefix,
        files: dict[str, File],
        place: Prefix,
        progress: Progress,
    ) -> Seal:
        if any(self._objects.needs_parts(file) for file in files.values()):
            await self._run(self._objects.abort_uploads, place)
        begun = await self._begun(files, place)
        count = itertools.count(len(begun.items))
        progress(next(count), len(files))

        def copy(file: File) -> SealedFile:
            item = self._objects.copy(file, source, begun.target)
            progress(next(count), len(files))
            return item

        missing = [file for path, file in files.items() if path not in begun.items]
        items = (*begun.items.values(), *await self._each(copy, missing))
        if version.former_seal is not None:
            await self._run(lambda seal: self._check_same(seal, items), version.former_seal)
        raw = begun.manifest
        if raw is None:
            raw = SealManifest(
                model=version.name,
                version=str(version.version),
                bucket=begun.target.bucket,
                prefix=begun.target.key,
                source=version.former_seal.source if version.former_seal else str(source),
                sealed_at=dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
                items=items,
            ).write()
            await self._run(lambda raw: self._objects.write_manifest(begun.key, raw), raw)
        return Seal.of(SealManifest.read(raw), raw, key=begun.key)

    def _check_same(self, former: Seal, items: Iterable[SealedFile]) -> None:
        """Others could write to where the files were relocated.

        Raises:
            UnsealableError: they are not those that were sealed before.
        """
        raw = self._objects.manifest(former.manifest)
        if raw is None or hashlib.sha256(raw).hexdigest() != former.sha256:
            raise UnsealableError(
                f"it was sealed before it was relocated, and the manifest of that seal, {former.manifest}, "
                f"is {'gone' if raw is None else 'another now'}: restore it, or register the model anew"
            )
        sealed, found = (
            {(item.path, item.size, item.checksum) for item in each}
            for each in (SealManifest.read(raw).items, items)
        )
        if differing := sorted({path for path, _, _ in sealed ^ found}):
            raise UnsealableError(
                f"it was sealed before it was relocated, and {len(differing)} files under {former.location} "
                f"are not those that were sealed, such as {differing[0]}: restore them, or register the "
                "model anew"
            )

    async def _begun(self, files: dict[str, File], place: Prefix) -> _Begun:
        """Where to copy to, and what of it is there already: only what the source still holds."""
        for number in itertools.count(1):
            target = place if number == 1 else Prefix(place.bucket, f"{place.key}-{number}")
            paths = [file.path for file in await self._run(lambda t: list(self._objects.files(t)), target)]
            if not paths:
                return _Begun(target, {}, None)
            if not files.keys() >= set(paths):
                continue
            copies = await self._each(functools.partial(self._objects.look, target), paths)
            items = {
                copy.item.path: copy.item
                for copy in copies
                if copy is not None and copy.source_etag == files[copy.item.path].etag
            }
            raw = await self._run(self._objects.manifest, _key_of_manifest(target))
            complete = raw is None or set(SealManifest.read(raw).items) == set(items.values())
            if len(items) == len(paths) and complete and (raw is None or len(items) == len(files)):
                return _Begun(target, items, raw)
        raise AssertionError("unreachable")

    async def _run(self, work: Callable[[Given], Made], given: Given) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, given)

    async def _each(self, work: Callable[[Given], Made], given: Iterable[Given]) -> list[Made]:
        """Do `work` for each, several at once; after a failure nothing more begins, what began is awaited."""
        turn = asyncio.Semaphore(_AT_ONCE)
        failures: list[Exception] = []

        async def one(each: Given) -> Made | None:
            async with turn:
                if failures:
                    return None
                try:
                    return await self._run(work, each)
                except Exception as error:
                    failures.append(error)
                    return None

        made = await asyncio.gather(*(one(each) for each in given))
        if failures:
            raise failures[0]
        return made  # type: ignore[return-value]


def _key_of_manifest(target: Prefix) -> str:
    return f"{target.key}.manifest.json"
