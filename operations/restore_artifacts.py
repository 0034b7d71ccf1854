"""`make restore-artifacts`: objects and models that were deleted or overwritten in S3 come back.

S3 keeps what was deleted or overwritten for `artifacts.noncurrent_days`. A former version is copied over its
object, with the operator's own credentials: the role `admin` suffices. Nothing is deleted, so that a restore
can be undone by another one. What is sealed cannot be deleted, and is left alone.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from operations.command import Command, Report, Say, moment
from operations.deployment import Deployment
from operations.errors import CannotRunError, FailedError

_SHOWN = 20
_MODEL = "models:/"
_RUN = "runs:/"


@dataclass(frozen=True)
class Version:
    """One version of one object, or the marker of its deletion, which has no bytes."""

    key: str
    id: str
    modified: datetime
    latest: bool
    marker: bool
    size: int = 0
    tag: str = ""


@dataclass(frozen=True)
class Change:
    """A version that is no longer what its object is."""

    version: Version
    deleted: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it is asked with."""
    parser.add_argument(
        "--of",
        required=True,
        metavar="WHAT",
        help="models:/NAME/VERSION, runs:/RUN_ID[/PATH], s3://BUCKET/KEY, or EXPERIMENT/RUN below the root",
    )
    parser.add_argument(
        "--at",
        type=moment,
        metavar="TIME",
        help="as everything was then, such as 2026-11-28T06:00:00Z; without it, what is deleted now",
    )
    parser.add_argument("--apply", action="store_true", help="restore; without it, only say what would be")


def run(deployment: Deployment, options: argparse.Namespace, say: Say) -> Report:
    """Tell what is missing below the place, restore it if asked to, and look again."""
    bucket, root = deployment.output("ArtifactBucket"), _root(deployment)
    place = _place(deployment, options.of)
    prefix = _prefix(place, bucket=bucket, root=root)
    _within_reach(deployment, options.at)
    s3 = deployment.client("s3")
    sealed = f"{root}sealed/"
    found = changes(s3, bucket, prefix, at=options.at, sealed=sealed)
    for each in found[:_SHOWN]:
        why = "deleted" if each.deleted else "overwritten"
        say(f"{why}: {each.version.key}, {each.version.size} bytes, of {each.version.modified.isoformat()}")
    if len(found) > _SHOWN:
        say(f"… and {len(found) - _SHOWN} more")
    left: list[Change] = found
    if options.apply and found:
        for each in found:
            _restore(s3, bucket, each.version)
        left = changes(s3, bucket, prefix, at=options.at, sealed=sealed)
        if left:
            raise FailedError(
                f"{left[0].version.key} and {len(left) - 1} more changed while they were restored; "
                "run this again"
            )
    document = {
        "bucket": bucket,
        "prefix": prefix,
        "deleted": sum(each.deleted for each in found),
        "overwritten": sum(not each.deleted for each in found),
        "bytes": sum(each.version.size for each in found),
        "restored": len(found) if options.apply else 0,
    }
    return Report(text=_text(document, applied=options.apply), document=document)


def changes(s3: Any, bucket: str, prefix: str, *, at: datetime | None, sealed: str) -> list[Change]:
    """What below the prefix was there at that time, or last of all, and is not there now or differs."""
    return [
        change
        for versions in _by_key(_versions(s3, bucket, prefix), sealed=sealed)
        if (change := _change(versions, at)) is not None
    ]


def _change(versions: list[Version], at: datetime | None) -> Change | None:
    """Compare an object now, the first of its versions, with what it was; the newest comes first."""
    now = versions[0]
    if at is None:
        then = next((each for each in versions if not each.marker), None) if now.marker else None
    else:
        then = next((each for each in versions if each.modified <= at), None)
    if then is None or then.marker or then.id == now.id:
        return None
    # An earlier restore has put the same bytes there.
    if not now.marker and (now.tag, now.size) == (then.tag, then.size):
        return None
    return Change(then, deleted=now.marker)


def _by_key(versions: Iterable[Version], *, sealed: str) -> Iterator[list[Version]]:
    found: Mapping[str, list[Version]] = defaultdict(list)
    for each in versions:
        if not each.key.startswith(sealed):
            found[each.key].append(each)
    for key in sorted(found):
        # S3 tells whole seconds; within one, what is latest, then a deletion, is taken for the later.
        yield sorted(found[key], key=lambda each: (each.modified, each.latest, each.marker), reverse=True)


def _versions(s3: Any, bucket: str, prefix: str) -> Iterator[Version]:
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for kind in ("Versions", "DeleteMarkers"):
            for each in page.get(kind, []):
                # `runs/1` is not about `runs/10`.
                if prefix.endswith("/") or each["Key"] == prefix or each["Key"].startswith(f"{prefix}/"):
                    yield Version(
                        key=each["Key"],
                        id=each["VersionId"],
                        modified=each["LastModified"],
                        latest=each["IsLatest"],
                        marker=kind == "DeleteMarkers",
                        size=each.get("Size", 0),
                        tag=each.get("ETag", ""),
                    )


def _restore(s3: Any, bucket: str, version: Version) -> None:
    """Copy the version over its object, inside S3; one above 5 GB in parts."""
    source = {"Bucket": bucket, "Key": version.key, "VersionId": version.id}
    s3.copy(source, bucket, version.key)


def _root(deployment: Deployment) -> str:
    prefix = deployment.environment.artifacts.prefix
    return f"{prefix}/" if prefix else ""


def _place(deployment: Deployment, what: str) -> str:
    """Return where it is: a URI of S3, or a path below the artifact root."""
    if not what.startswith((_MODEL, _RUN)):
        return what
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(deployment.tracking_url(os.environ))
    try:
        return _of_mlflow(client, what)
    except (MlflowException, ValueError) as error:
        raise CannotRunError(
            f"MLflow does not say where {what} is: {error}; sign in as docs/connect.md says, or name the "
            "place in S3"
        ) from error


def _of_mlflow(client: Any, what: str) -> str:
    """Follow names of MLflow to the place in S3."""
    if what.startswith(_RUN):
        run_id, _, path = what.removeprefix(_RUN).partition("/")
        return f"{client.get_run(run_id).info.artifact_uri}/{path}".rstrip("/")
    name, _, version = what.removeprefix(_MODEL).partition("/")
    if not version:
        return str(client.get_logged_model(name).artifact_location)
    source = str(client.get_model_version(name, version).source)
    return _of_mlflow(client, source) if source.startswith((_MODEL, _RUN)) else source


def _prefix(place: str, *, bucket: str, root: str) -> str:
    if not place.startswith("s3://"):
        return f"{root}{place.lstrip('/')}"
    named, _, key = place.removeprefix("s3://").partition("/")
    if named != bucket:
        raise CannotRunError(f"{place} is not in this deployment's bucket, {bucket}; name what is")
    return key


def _within_reach(deployment: Deployment, at: datetime | None) -> None:
    days = deployment.environment.artifacts.noncurrent_days
    now = datetime.now(UTC)
    if at is not None and not now - timedelta(days=days) <= at <= now:
        raise CannotRunError(
            f"--at {at.isoformat()} is not within the last {days} days, for which S3 keeps former versions "
            "(artifacts.noncurrent_days); name a time that is, or restore the bucket from its backup"
        )


def _text(document: Mapping[str, object], *, applied: bool) -> str:
    counted = (
        f"{document['deleted']} deleted and {document['overwritten']} overwritten objects, "
        f"{document['bytes']} bytes, below s3://{document['bucket']}/{document['prefix']}"
    )
    if applied:
        return f"restored: {counted}"
    return f"would be restored: {counted}. Restore them: the same command with APPLY=yes"


COMMAND = Command(
    name="restore-artifacts",
    help="bring back objects and models that were deleted or overwritten in S3",
    run=run,
    add_arguments=add_arguments,
)
