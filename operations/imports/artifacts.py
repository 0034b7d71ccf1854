"""The files of a source: where they are, by what its tables say, and copying them to this deployment.

Like `aws s3 sync`: what is there already, as large and not older, is not copied again. A tracking server says
nothing of a file's age: as large is the same.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from botocore.exceptions import ClientError

from operations.command import Say
from operations.errors import CannotRunError
from operations.imports.archive import Archive

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_THREADS = 16
# MLflow's client keeps ten connections.
_SERVER_THREADS = 8
_REPORT_SECONDS = 10.0
# Larger objects are copied in parts of this size; CopyObject ends at 5 GB.
_PART = 256 * 2**20
# What stands for no place: references, and what MLflow leaves of prompts and of deleted versions.
_REFERENCES = ("models:/", "runs:/", "prompt-template", "dummy-source", "REDACTED-SOURCE-PATH")
_TRACES = ("mlflow.artifactLocation", "mlflow.trace.archiveLocation")

STAYS = "none"
"""Stands for a place whose files stay where they are."""

Files = dict[str, tuple[int, float]]
"""Size and time of each file, by its path below a root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Everything below one place: as the source's tables name it, where it is, and where it goes."""

    old: str
    at: str
    new: str
    server: str | None = None
    """The tracking server through which MLflow's client reads it, for neither S3 nor a folder has it."""
    places: tuple[str, ...] = ()
    """What is asked for there: a server may list nothing but the files of one run, or of one model."""


def roots(
    archive: Archive,
    *,
    given: Mapping[str, str],
    target: str,
    folder: Path | None = None,
    server: str | None = None,
) -> list[Root]:
    """The roots of all places in an archive; `given` says where some of them are.

    `folder` is the source's own: an `mlruns/` may have moved since its files named it. `server` is the
    source, if it is one: what it serves is read through it.

    Raises:
        CannotRunError: one can neither be read from S3 nor from here.
    """
    found = []
    for old, named in _old_roots(archive, sorted(given)).items():
        new = f"{target}/{hashlib.sha256(old.encode()).hexdigest()[:8]}"
        at = given.get(old)
        if at is None and server and urlsplit(old).scheme not in ("", "file", "s3"):
            found.append(Root(old=old, at=old, new=new, server=server, places=_places(archive, old)))
        elif (at := at or _readable(old, folder, must=named)) != STAYS:
            found.append(Root(old=old, at=at, new=new))
    return found


def _places(archive: Archive, root: str) -> tuple[str, ...]:
    """What is named below a root, without what is inside of another."""
    found: list[str] = []
    # With the slash, everything inside of a place follows it.
    for place in sorted({f"{place.rstrip('/')}/" for place, *_ in _named(archive) if _is_below(place, root)}):
        if not found or not place.startswith(found[-1]):
            found.append(place)
    return tuple(place.rstrip("/") for place in found)


def _old_roots(archive: Archive, known: list[str]) -> dict[str, bool]:
    """Each place is below one of them, and none is below another; whether more than experiments name it."""
    found = dict.fromkeys(known, False)

    def add(place: str, endings: tuple[str, ...], *, named: bool) -> None:
        if (above := next((root for root in found if _is_below(place, root)), None)) is not None:
            found[above] |= named
            return
        for ending in endings:
            place = place.removesuffix("/").removesuffix(ending)
        for root in [root for root in found if root not in known and _is_below(root, place)]:
            named |= found.pop(root)
        found[place] = named

    for number, place in archive.values("experiments", "experiment_id", "artifact_location"):
        if place:
            add(place, (f"/{number}",), named=False)
    for place, *endings in _named(archive):
        add(place, tuple(endings), named=True)
    return found


def _named(archive: Archive) -> Iterator[tuple[str, ...]]:
    """Every place of files that the tables name, and the endings that are below its root."""
    for number, run, place in archive.values("runs", "experiment_id", "run_uuid", "artifact_uri"):
        if place:
            yield place, "/artifacts", f"/{run}", f"/{number}"
    for model, place in archive.values("logged_models", "model_id", "artifact_location"):
        if place:
            yield place, "/artifacts", f"/{model}", "/models"
    for column in ("source", "storage_location"):
        for (place,) in archive.values("model_versions", column):
            if place and not place.startswith(_REFERENCES):
                yield (place,)
    for key, place in archive.values("trace_tags", "key", "value"):
        if place and key in _TRACES:
            yield (place,)


def _is_below(place: str, root: str) -> bool:
    return place == root or place.startswith(f"{root.rstrip('/')}/")


def _readable(old: str, folder: Path | None, *, must: bool) -> str:
    parts = urlsplit(old)
    if parts.scheme == "s3":
        return old
    if parts.scheme in ("", "file"):
        path = Path(unquote(parts.path) if parts.scheme else old)
        if not path.is_dir() and folder is not None and path.name in ("mlruns", folder.name):
            path = folder
        # Experiments without runs have no files.
        if path.is_dir() or not must:
            return str(path)
    raise CannotRunError(
        f"the source has files at {old}, which cannot be read from here: say where they are, "
        f"ARTIFACTS={old}=s3://BUCKET/PREFIX, ARTIFACTS={old}=FOLDER, or ARTIFACTS={old}=none: they stay"
    )


@dataclass(slots=True)
class Copied:
    """What a copy ended with."""

    there: int = 0
    here: int = 0
    differing: int = 0
    bytes_there: int = 0
    bytes_here: int = 0
    copied: int = 0

    @property
    def document(self) -> dict[str, dict[str, int]]:
        """Files and bytes, there and here; `differing` files are missing here, or of another size."""
        return {
            "files": {"there": self.there, "here": self.here, "differing": self.differing},
            "bytes": {
                "there": self.bytes_there,
                "here": self.bytes_here,
                "differing": abs(self.bytes_there - self.bytes_here),
            },
        }


def copy(s3: Any, roots: list[Root], *, say: Say, dry_run: bool = False) -> Copied:
    """Copy what is not here, and compare all of it; with `dry_run`, only compare."""
    total = Copied()
    for root in roots:
        _copy_root(s3, root, total, say, dry_run=dry_run)
    return total


def _copy_root(s3: Any, root: Root, total: Copied, say: Say, *, dry_run: bool) -> None:
    bucket, prefix = _place(root.new)
    try:
        source = _files(s3, root)
    except ClientError as error:
        raise _unreadable(root, error) from error
    here = dict(_objects(s3, bucket, prefix))
    missing = [
        path
        for path, (size, at) in source.items()
        if path not in here or here[path][0] != size or here[path][1] < at
    ]
    say(f"{root.old}: {len(source):,} files, {len(missing):,} of them to copy from {root.at} to {root.new}")
    if missing and not dry_run:
        _copy_files(s3, root, missing, say)
        here = dict(_objects(s3, bucket, prefix))
        total.copied += len(missing)
    total.there += len(source)
    total.bytes_there += sum(size for size, _ in source.values())
    found = {path: size for path, (size, _) in here.items() if path in source}
    total.here += len(found)
    total.bytes_here += sum(found.values())
    total.differing += sum(found.get(path) != size for path, (size, _) in source.items())


def _copy_files(s3: Any, root: Root, paths: list[str], say: Say) -> None:
    from boto3.s3.transfer import TransferConfig

    config = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, use_threads=False)
    bucket, prefix = _place(root.new)
    stopped = threading.Event()

    def one(path: str) -> None:
        if stopped.is_set():
            return
        key = f"{prefix}{path}"
        if root.at.startswith("s3://"):
            source_bucket, source_prefix = _place(root.at)
            s3.copy({"Bucket": source_bucket, "Key": f"{source_prefix}{path}"}, bucket, key, Config=config)
        elif root.server:
            with tempfile.NamedTemporaryFile(prefix="mlflow-import-") as file:
                _download(root, path, file.name)
                s3.upload_file(file.name, bucket, key, Config=config)
        else:
            s3.upload_file(str(Path(root.at) / path), bucket, key, Config=config)

    told = time.monotonic()
    with ThreadPoolExecutor(_SERVER_THREADS if root.server else _THREADS) as pool:
        try:
            for number, done in enumerate(as_completed([pool.submit(one, path) for path in paths]), 1):
                done.result()
                if time.monotonic() - told > _REPORT_SECONDS:
                    told = time.monotonic()
                    say(f"copied {number:,} of {len(paths):,} files")
        except BaseException:
            # What is queued ends at once; what was copied stays, and is not copied again.
            stopped.set()
            raise


def _files(s3: Any, root: Root) -> Files:
    if root.server:
        return dict(_served(root))
    return dict(_objects(s3, *_place(root.at)) if root.at.startswith("s3://") else _local(Path(root.at)))


def _served(root: Root) -> Iterator[tuple[str, tuple[int, float]]]:
    """What MLflow's client lists; a server says nothing of ages, nor of the size of an empty file."""

    def one(place: str) -> Files:
        found: Files = {}
        folders = [""]
        with _asking(root, place) as repository:
            while folders:
                for each in repository.list_artifacts(folders.pop() or None):
                    if each.is_dir:
                        folders.append(each.path)
                    else:
                        path = f"{place.removeprefix(root.at).lstrip('/')}/{each.path}"
                        found[path] = (each.file_size or 0, 0.0)
        return found

    with ThreadPoolExecutor(_SERVER_THREADS) as pool:
        for found in pool.map(one, root.places):
            yield from found.items()


def _download(root: Root, path: str, to: str) -> None:
    folder, _, name = path.rpartition("/")
    with _asking(root, f"{root.at.rstrip('/')}/{folder}") as repository:
        # Without its listing, its threads and its progress bar.
        repository._download_file(name, to)


@contextmanager
def _asking(root: Root, place: str) -> Iterator[ArtifactRepository]:
    from mlflow.exceptions import MlflowException

    try:
        yield _repository(place, root.server)
    # OSError: the errors of HTTP are such. ImportError: MLflow reads some places by libraries of their own.
    except (MlflowException, OSError, ImportError) as error:
        raise _unreadable(root, error) from error


@cache
def _repository(place: str, server: str | None) -> ArtifactRepository:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(place, tracking_uri=server, registry_uri=server)


def _unreadable(root: Root, error: Exception) -> CannotRunError:
    return CannotRunError(
        f"the source has files at {root.old}, and {root.at} cannot be read: {error}. Say where they "
        f"are, ARTIFACTS={root.old}=s3://BUCKET/PREFIX, or ARTIFACTS={root.old}=none: they stay"
    )


def _place(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    key = parts.path.strip("/")
    return parts.netloc, f"{key}/" if key else ""


def _objects(s3: Any, bucket: str, prefix: str) -> Iterator[tuple[str, tuple[int, float]]]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            path = item["Key"].removeprefix(prefix)
            # What consoles show as a folder.
            if path and not path.endswith("/"):
                yield path, (item["Size"], item["LastModified"].timestamp())


def _local(folder: Path) -> Iterator[tuple[str, tuple[int, float]]]:
    # A folder `mlruns/` holds runs and models too, which are in the archive.
    also_runs = next(folder.glob("*/meta.yaml"), None) is not None
    for directory, _, names in os.walk(folder):
        if also_runs and "artifacts" not in Path(directory).relative_to(folder).parts:
            continue
        for name in names:
            path = Path(directory) / name
            status = path.stat()
            # S3 keeps whole seconds.
            yield path.relative_to(folder).as_posix(), (status.st_size, float(int(status.st_mtime)))
