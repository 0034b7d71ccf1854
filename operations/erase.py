"""`make erase`: what a run, an experiment, an author, a data set or a user of traces left here goes for good.

Under the break-glass role, which alone may delete versions of objects. A read-only task plans; the plan
becomes a request in S3, which nobody else can write; every version of the files is deleted; a second task
deletes the rows of what has no file left; and a certificate beside the request says what went. An erasure
that was interrupted has a request and no certificate: the same command finishes it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from operations import task
from operations.command import Command, Report, Say
from operations.deployment import Deployment
from operations.errors import CannotRunError, FailedError

WHAT = {
    "run": "this run, its models and traces",
    "experiment": "the experiment with this id",
    "author": "what this principal made",
    "dataset": "the runs that used this data set",
    "trace_user": "traces of this user",
    "trace_session": "traces of this session",
}
# Of whom a certificate keeps a digest, which proves and does not name.
_PERSONS = ("author", "trace_user")
_THREADS = 16
_AT_ONCE = 1000
_SHOWN = 20
# S3's answer for a version that was never locked.
_NO_LOCK = "NoSuchObjectLockConfiguration"

Version = tuple[str, str, int, bool]
"""Key, id and size, and whether it is a delete marker."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it is asked with."""
    kinds = parser.add_mutually_exclusive_group(required=True)
    for kind, what in WHAT.items():
        kinds.add_argument(f"--{kind.replace('_', '-')}", help=what)
    parser.add_argument("--dry-run", action="store_true", help="say what would go; change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(deployment: Deployment, options: argparse.Namespace, say: Say) -> Report:
    """Plan, or find what was interrupted; ask; delete files, then rows; write the certificate."""
    what = next(kind for kind in WHAT if getattr(options, kind))
    value = str(getattr(options, what))
    store = _Store(deployment)
    by = "" if options.dry_run else _under_break_glass(deployment)
    named = {"what": what, "value": _named(what, value)}
    begun = None if options.dry_run else store.begun(named)
    if begun is None:
        planned = task.run(deployment, "Erase", arguments=[f"--what={what}", f"--value={value}"], follow=say)
        versions = {each for found in store.versions(planned["things"]).values() for each in found}
        planned |= _counted(versions)
        if options.dry_run or not planned["things"]:
            return Report(text=_text(planned, f"would go for {what} {value}:"), document=planned)
        if not options.yes:
            _ask(deployment, planned, what, value)
        request = {**named, "by": by, "at": _now(), **planned}
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        store.write(name, "request", request)
    else:
        name = begun
        say(f"erase: goes on with {name}, which was interrupted")
    raw = store.read(name, "request")
    request = json.loads(raw)
    held = store.delete(request["things"], say)
    sha256 = hashlib.sha256(raw).hexdigest()
    done = task.run(deployment, "Erase", arguments=[f"--request={name}", f"--sha256={sha256}"], follow=say)
    certificate = {
        **{key: request[key] for key in ("what", "value", "by", "at", "elsewhere", "more")},
        "ended": _now(),
        "finished_by": by,
        "account": deployment.account,
        "request": {"id": name, "sha256": sha256},
        **_difference(request, held, done),
        "kept": {**request["kept"], **done["kept"], **{each: why for each, (why, _) in held.items()}},
        "left": _left(deployment),
    }
    digest = store.write(name, "certificate", certificate)
    text = _text(certificate, f"went for {what} {value}:")
    where = f"certificate: {store.uri(name, 'certificate')}, SHA-256 {digest}"
    return Report(
        text="\n".join([text, "left:", *(f"  {each}" for each in certificate["left"]), where]),
        document={**certificate, "certificate": {"uri": store.uri(name, "certificate"), "sha256": digest}},
        good=not (certificate["kept"] or certificate["elsewhere"] or certificate["more"]),
    )


class _Store:
    """The artifact bucket: versions of objects, requests and certificates."""

    def __init__(self, deployment: Deployment) -> None:
        self._s3 = deployment.client("s3")
        self._bucket = deployment.output("ArtifactBucket")
        artifacts = deployment.environment.artifacts
        self._below = f"{artifacts.prefix}/erasures/".removeprefix("/")
        self._locks = artifacts.object_lock is not None

    def uri(self, name: str, document: str) -> str:
        """Where a document is."""
        return f"s3://{self._bucket}/{self._key(name, document)}"

    def read(self, name: str, document: str) -> bytes:
        """A document's bytes."""
        got = self._s3.get_object(Bucket=self._bucket, Key=self._key(name, document))
        return bytes(got["Body"].read())

    def write(self, name: str, document: str, content: Mapping[str, object]) -> str:
        """Write a document; returns its digest."""
        raw = json.dumps(content, sort_keys=True, indent=1).encode()
        self._s3.put_object(
            Bucket=self._bucket, Key=self._key(name, document), Body=raw, ContentType="application/json"
        )
        return hashlib.sha256(raw).hexdigest()

    def begun(self, named: Mapping[str, str]) -> str | None:
        """An erasure of the same that has no certificate."""
        keys = {key for key, *_ in self._versions(self._below)}
        for name in sorted({key.removeprefix(self._below).split("/")[0] for key in keys}):
            if self._key(name, "request") in keys and self._key(name, "certificate") not in keys:
                request = json.loads(self.read(name, "request"))
                if named.items() <= request.items():
                    return name
        return None

    def versions(self, things: Mapping[str, Mapping[str, list[str]]]) -> dict[str, set[Version]]:
        """Every version and delete marker of each thing."""
        named = {f"{kind} {each}": places for kind, of in things.items() for each, places in of.items()}
        with ThreadPoolExecutor(_THREADS) as threads:
            found = threads.map(
                lambda places: {each for place in places for each in self._versions(place)}, named.values()
            )
            return dict(zip(named, found, strict=True))

    def delete(
        self, things: Mapping[str, Mapping[str, list[str]]], say: Say
    ) -> dict[str, tuple[str, set[Version]]]:
        """Delete every version of what no lock and no legal hold keeps; returns what one does, and why.

        Raises:
            FailedError: S3 refused one.
        """
        found = self.versions(things)
        held = {each: (why, versions) for each, versions in found.items() if (why := self._held(versions))}
        keep = {each for _, versions in held.values() for each in versions}
        going = sorted({each for versions in found.values() for each in versions} - keep)
        for first in range(0, len(going), _AT_ONCE):
            entries = [
                {"Key": key, "VersionId": version} for key, version, *_ in going[first : first + _AT_ONCE]
            ]
            answer = self._s3.delete_objects(Bucket=self._bucket, Delete={"Objects": entries, "Quiet": True})
            for error in answer.get("Errors", []):
                raise FailedError(
                    f"S3 did not delete a version of {error['Key']}: {error['Code']} "
                    f"{error.get('Message', '')}; look at the policy of this role, at locks and legal holds, "
                    "and run this again: it goes on"
                )
            say(f"erase: {first + len(entries)} of {len(going)} versions of objects are deleted")
        return held

    def _held(self, versions: set[Version]) -> str:
        if not self._locks:
            return ""
        with ThreadPoolExecutor(_THREADS) as threads:
            return next(filter(None, threads.map(self._lock, sorted(versions))), "")

    def _lock(self, version: Version) -> str:
        from botocore.exceptions import ClientError

        key, version_id, _, marker = version
        where = {"Bucket": self._bucket, "Key": key, "VersionId": version_id}
        if marker:
            return ""
        try:
            if self._s3.get_object_legal_hold(**where)["LegalHold"]["Status"] == "ON":
                return f"legal hold on {key}"
        except ClientError as error:
            if error.response["Error"]["Code"] != _NO_LOCK:
                raise
        try:
            until = self._s3.get_object_retention(**where)["Retention"]["RetainUntilDate"]
        except ClientError as error:
            if error.response["Error"]["Code"] != _NO_LOCK:
                raise
            return ""
        return f"{key} is locked until {until:%Y-%m-%d}" if until > datetime.now(UTC) else ""

    def _versions(self, prefix: str) -> Iterator[Version]:
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            for each in page.get("Versions", []):
                yield each["Key"], each["VersionId"], each["Size"], False
            for each in page.get("DeleteMarkers", []):
                yield each["Key"], each["VersionId"], 0, True

    def _key(self, name: str, document: str) -> str:
        return f"{self._below}{name}/{document}.json"


def _under_break_glass(deployment: Deployment) -> str:
    """Who this is, if it is a session of the break-glass role; S3 decides, this says it first."""
    role = deployment.environment.artifacts.break_glass_role_arn
    if role is None:
        raise CannotRunError(
            f"nobody may delete versions of objects: set artifacts.break_glass_role_arn in "
            f"config/{deployment.name}.toml, `make deploy ENV={deployment.name}`, and sign in as that role"
        )
    arn = str(deployment.client("sts").get_caller_identity()["Arn"])
    account, name = role.split(":")[4], role.rpartition("/")[2]
    if f":sts::{account}:assumed-role/{name}/" not in arn:
        raise CannotRunError(
            f"you are {arn}, and only {role} may erase: sign in as that role; DRY_RUN=yes only plans"
        )
    return arn


def _ask(deployment: Deployment, planned: Mapping[str, Any], what: str, value: str) -> None:
    print(
        _text(
            planned, f"for {what} {value} of {deployment.name}, account {deployment.account}, go for good:"
        ),
        file=sys.stderr,
    )
    print("Nothing brings it back but backups. Erase? (yes/no) ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != "yes":
        raise CannotRunError("nothing was done; YES=yes answers without a terminal")


def _named(what: str, value: str) -> str:
    return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}" if what in _PERSONS else value


def _counted(versions: set[Version]) -> dict[str, int]:
    markers = sum(marker for *_, marker in versions)
    return {
        "versions": len(versions) - markers,
        "markers": markers,
        "bytes": sum(size for _, _, size, _ in versions),
    }


def _difference(
    request: Mapping[str, Any], held: Mapping[str, tuple[str, set[Version]]], done: Mapping[str, Any]
) -> dict[str, Any]:
    """What was there when it was asked for, and is not any more: so also what an interrupted attempt took."""
    stays = _counted({each for _, versions in held.values() for each in versions})
    rows = {table: number - done["rows_left"].get(table, 0) for table, number in request["rows"].items()}
    kept = {*done["kept"], *held}
    return {
        "things": {
            kind: sum(f"{kind} {each}" not in kept for each in of) for kind, of in request["things"].items()
        },
        "rows": {table: number for table, number in rows.items() if number},
        **{name: request[name] - number for name, number in stays.items()},
    }


def _left(deployment: Deployment) -> list[str]:
    """Where it still is, and for how long: what one writes to who asked for the erasure."""
    config = deployment.environment
    left = [
        f"automated backups of the database: {config.database.backup_days} days",
        "snapshots of the database that somebody, an upgrade or a restore took: until they are deleted",
        f"the audit log, which names who did what: {config.server.audit_log_days} days; CloudTrail, too",
        f"S3's access logs, with keys of objects: {config.artifacts.access_log_days} days",
        "names of authors in the history of registered models, and the request and the certificate in S3",
    ]
    if config.backup is not None:
        left.append(f"AWS Backup's recovery points of database and bucket: {config.backup.days} days")
        if config.backup.recovery is not None:
            left.append("the second region: its copies of the backups, and the replica of the bucket")
    if config.artifacts.sealed_replica is not None:
        left.append(f"sealed copies in {config.artifacts.sealed_replica.bucket_arn}")
    return left


def _text(document: Mapping[str, Any], head: str) -> str:
    kept, elsewhere = list(document["kept"].items()), document["elsewhere"]
    counts = {kind: of if isinstance(of, int) else len(of) for kind, of in document["things"].items()}
    return "\n".join(
        [
            head,
            *(f"  {number:>12,} {kind}" for kind, number in counts.items()),
            *(f"  {number:>12,} rows of {table}" for table, number in document["rows"].items()),
            f"  {document['versions']:>12,} versions of objects, {document['bytes']:,} bytes, "
            f"and {document['markers']:,} delete markers",
            f"kept: {len(kept)}",
            *(f"  {what}: {why}" for what, why in kept[:_SHOWN]),
            *([f"  and {len(kept) - _SHOWN} more: --json"] if len(kept) > _SHOWN else []),
            *(["not under the artifact root, left to you:"] if elsewhere else []),
            *(f"  {uri}" for uri in elsewhere[:_SHOWN]),
            *(["there is more than one request takes: run this again"] if document["more"] else []),
        ]
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


COMMAND = Command(
    name="erase",
    help="Erase rows and all object versions for good, under the break-glass role, with a certificate.",
    run=run,
    add_arguments=add_arguments,
)
