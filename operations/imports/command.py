"""`make import`: another MLflow becomes part of this deployment, all of it counted."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from operations import task
from operations.command import Command, Report, Say
from operations.deployment import Deployment
from operations.errors import CannotRunError
from operations.imports import artifacts, databases, dumps, mlruns, rest
from operations.imports.archive import Archive

_DATABASE = re.compile(r"(postgres(ql)?|mysql|mariadb|sqlite)(\+\w+)?:")
# What MLflow's client takes for a tracking server; plugins add the ARN of one in SageMaker.
_SERVER = re.compile(r"https?://|databricks|arn:aws:sagemaker:")
# Where reading a server goes on after an interruption.
_UNFINISHED = Path(".local") / "imports"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it is asked with."""
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="SOURCE",
        help="postgresql://…, mysql://… or sqlite:///… without a password, a dump of pg_dump, mlruns/, "
        "or https://… of a server",
    )
    parser.add_argument(
        "--name", help="of the source, the same each time; by default what the source is called"
    )
    parser.add_argument("--suffix", help="what a name gets that is taken here; by default -NAME")
    parser.add_argument(
        "--artifacts",
        nargs="*",
        default=[],
        metavar="OLD=WHERE",
        help="where files are that the tables say are at OLD: s3://…, a folder, or none: they stay",
    )
    parser.add_argument("--dry-run", action="store_true", help="do everything but keep nothing")


def run(deployment: Deployment, options: argparse.Namespace, say: Say) -> Report:
    """Read the source, copy its files, upload the archive, run the task, and count."""
    # Read at last, and known at first.
    deployment.place("Import")
    name = _name(options)
    with _directory(options.source, name) as directory:

        def begin(revision: str) -> Archive:
            return Archive(directory, source=name, kind="database", revision=revision)

        archive = _read(options.source, begin, say)
        root = _artifact_root(deployment)
        target = f"{root}/imported/{name}"
        moved = (
            []
            if options.artifacts == [artifacts.STAYS]
            else artifacts.roots(
                archive,
                given=_given(options.artifacts),
                target=target,
                folder=_folder(options.source),
                server=options.source if _SERVER.match(options.source) else None,
            )
        )
        s3 = deployment.client("s3")
        copied = artifacts.copy(s3, moved, say=say, dry_run=options.dry_run)
        archive.finish(
            suffix=f"-{name}" if options.suffix is None else options.suffix,
            roots={each.old: each.new for each in moved},
        )
        arguments = ["--archive", name, "--sha256", archive.sha256]
        with _uploaded(s3, archive, f"{root}/imports/{name}/", say):
            document = task.run(
                deployment,
                "Import",
                arguments=arguments + ["--dry-run"] * options.dry_run,
                follow=say,
            )
    counts: dict[str, Mapping[str, int]] = {**document["rows"], **(copied.document if moved else {})}
    good = options.dry_run or not any(each["differing"] for each in counts.values())
    return Report(
        text=_text(document, counts, dry_run=options.dry_run),
        document={**document, "artifacts": copied.document},
        good=good,
    )


@contextmanager
def _directory(source: str, name: str) -> Iterator[Path]:
    """Where the archive grows: what was read of a server outlives an interruption."""
    if _SERVER.match(source):
        yield _UNFINISHED / name
        shutil.rmtree(_UNFINISHED / name)
    else:
        with tempfile.TemporaryDirectory(prefix="mlflow-import-") as directory:
            yield Path(directory)


def _read(source: str, begin: Callable[[str], Archive], say: Say) -> Archive:
    if _DATABASE.match(source):
        return databases.read(databases.parsed(source, dict(os.environ)), begin, say)
    if _SERVER.match(source):
        return rest.read(source, begin, say)
    path = Path(source)
    if path.is_dir():
        return mlruns.read(path, begin, say)
    if path.is_file():
        return dumps.read(path, begin, say)
    raise CannotRunError(f"there is no database, dump or folder {source}")


def _folder(source: str) -> Path | None:
    """The folder of runs, if the source is one: it may have moved."""
    path = Path(source)
    return next((each for each in (path / "mlruns", path) if each.is_dir()), None) if path.is_dir() else None


def _name(options: argparse.Namespace) -> str:
    given = options.name or re.sub(r"[^a-z0-9]+", "-", _called(options.source).lower()).strip("-")[:40]
    if _NAME.fullmatch(given) is None:
        raise CannotRunError(f"--name is {given!r}: lower case letters, digits and `-`, at most 63")
    return str(given)


def _called(source: str) -> str:
    if _DATABASE.match(source):
        return Path(source.partition("?")[0]).stem
    if _SERVER.match(source):
        return source.rpartition("://")[2].rpartition("@")[2].strip("/")
    return Path(source).absolute().name.partition(".")[0]


def _given(pairs: Sequence[str]) -> dict[str, str]:
    given = {}
    for pair in pairs:
        old, _, at = pair.partition("=")
        if not (old and at):
            raise CannotRunError(f"ARTIFACTS has {pair!r}: write OLD=WHERE, or none")
        if not (at == artifacts.STAYS or at.startswith("s3://") or Path(at).is_dir()):
            raise CannotRunError(f"ARTIFACTS: {at} is neither s3://… nor a folder nor none")
        given[old.rstrip("/")] = at
    return given


def _artifact_root(deployment: Deployment) -> str:
    prefix = deployment.environment.artifacts.prefix
    return f"s3://{deployment.output('ArtifactBucket')}/{prefix}".rstrip("/")


@contextmanager
def _uploaded(s3: Any, archive: Archive, place: str, say: Say) -> Iterator[None]:
    """The archive where the task reads it, for as long as that runs: its rows are in the database then."""
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    say(f"upload the archive: {sum(file.stat().st_size for file in archive.files):,} bytes to {place}")
    try:
        for file in archive.files:
            s3.upload_file(str(file), bucket, f"{prefix}{file.name}")
        yield
    finally:
        for file in archive.files:
            s3.delete_object(Bucket=bucket, Key=f"{prefix}{file.name}")


def _text(document: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]], *, dry_run: bool) -> str:
    lines = [f"{'':34}{'there':>14}{'here':>14}{'differing':>14}"]
    for what, each in counts.items():
        lines.append(f"{what:34}{each['there']:>14,}{each['here']:>14,}{each['differing']:>14,}")
    for each in document["mapped"]:
        lines.append(
            "mapped: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in each.items())
        )
    for what, told in _TOLD.items():
        if found := document[what]:
            numbers = (
                f"{found:,}" if isinstance(found, int) else ", ".join(f"{k} {v:,}" for k, v in found.items())
            )
            lines.append(f"{told}: {numbers}")
    rows = sum(document["copied"].values())
    ended = f"{rows:,} rows would be new" if dry_run else f"{rows:,} rows are new"
    return "\n".join(
        [*lines, f"{ended}; everything else was here" if rows else "nothing is new: all of it was here"]
    )


_TOLD = {
    "moved": "places that now name this deployment",
    "claims": "tags mlflow_aws.* of the source, kept as imported.mlflow_aws.*",
    "without_parents": "rows left out, whose run or experiment does not exist in the source",
    "migrated": "rows that MLflow's own migrations added or took, to keep the same otherwise",
    "unused_default_experiment": "left out, since every MLflow has one and nobody used the source's",
    "left_out": "rows left out, which belong to the source's processes and keys",
    "elsewhere": "with files outside of this deployment, where its server reads nothing",
}

COMMAND = Command(
    name="import",
    help="make another MLflow part of this deployment",
    add_arguments=add_arguments,
    run=run,
)
