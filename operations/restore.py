"""`make restore`: the database of a snapshot, or of a point in time, takes the place of the deployed one."""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from operations.command import Command, Report, Say, moment
from operations.database import Cluster, Database, Instance, database_of
from operations.deployment import Deployment
from operations.errors import CannotRunError, FailedError
from operations.scratch import timed
from operations.smoke import later, smoke
from stacks.config_file import CONFIG

_PROJECT = Path(__file__).parents[1]
# On the copy that a point in time is taken from; its snapshot stays, since the database is made of it.
_TAG = "mlflow-on-aws:restore"
_TABLE = re.compile(r"^\[database\][ \t]*(?:#.*)?\n", re.MULTILINE)
_LINE = re.compile(r"^restore_from[ \t]*=.*\n", re.MULTILINE)
_STABLE = {"Delay": 5, "MaxAttempts": 360}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--snapshot", help="name or ARN of the snapshot")
    source.add_argument("--at", type=moment, help="the moment, such as 2026-11-28T10:00:00Z")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--no-smoke", action="store_true", help="do not run the smoke client at the end")


def _run(deployment: Deployment, options: argparse.Namespace, say: Say) -> Report:
    return restore(
        deployment,
        options,
        say,
        deploy=lambda: _deploy(deployment.name),
        file=CONFIG / f"{deployment.name}.toml",
    )


def restore(
    deployment: Deployment,
    options: argparse.Namespace,
    say: Say,
    *,
    deploy: Callable[[], None],
    file: Path,
) -> Report:
    """Restore, so that the configuration and the account agree afterwards.

    Each phase that an earlier attempt completed is not done again. The service stands still only for the last
    snapshot and the deployment; the replaced database is kept.

    Raises:
        CannotRunError: it was not begun.
        FailedError: a phase failed; the service runs again, on the database that it had.
    """
    seconds: dict[str, float] = {}
    database = database_of(deployment)
    target = options.snapshot or _name(deployment, f"at-{options.at:%Y%m%dt%H%M%Sz}")
    if not options.yes:
        _ask(deployment, database, target)
    if options.at is not None:
        with timed("point in time", seconds, say):
            _snapshot_of(options.at, database, target, deployment.name, say)
    elif not options.snapshot.startswith("arn:") and not _exists(database, target):
        raise CannotRunError(f"{database.name} has no snapshot {target} that is available")
    last = _name(deployment, f"before-{dt.datetime.now(dt.UTC):%Y%m%dt%H%M%Sz}")
    # The suffix of the database's name is the snapshot's.
    in_place = database.name.endswith(f"-{hashlib.sha256(target.encode()).hexdigest()[:8]}")
    if in_place:
        say(f"{target} is in place: an earlier attempt goes on; to restore it anew, copy it to another name")
    say("the service's tasks stop …")
    _scale(deployment, 0)
    try:
        if not in_place:
            with timed("last snapshot", seconds, say):
                database.take_snapshot(last, {})
        before = file.read_text()
        file.write_text(with_snapshot(before, target))
        with timed("deploy", seconds, say):
            try:
                deploy()
            except FailedError:
                if not in_place and database_of(deployment).name == database.name:
                    file.write_text(before)
                    say(f"{file.name} is as it was, as the database is")
                raise
    finally:
        with timed("start", seconds, say):
            _scale(deployment, deployment.environment.server.min_tasks)
    kept = "" if in_place else last
    proof = "not asked for"
    if not options.no_smoke:
        with timed("smoke", seconds, say):
            proof = _smoke(deployment, kept, say)
    return _report(deployment.name, target, kept, database.name, proof, seconds)


def with_snapshot(text: str, snapshot: str) -> str:
    """The environment's file with this `database.restore_from`, and nothing else changed.

    Raises:
        CannotRunError: it has no table `[database]` to write it into.
    """
    line = f'restore_from = "{snapshot}"\n'
    if _LINE.search(text):
        return _LINE.sub(lambda _: line, text, count=1)
    table = _TABLE.search(text)
    if table is None:
        raise CannotRunError(f"the environment's file has no line [database]: write there {line.strip()}")
    return text[: table.end()] + line + text[table.end() :]


def _snapshot_of(moment: dt.datetime, database: Database, target: str, environment: str, say: Say) -> None:
    """A snapshot of the database as it was, by way of a copy, while the service goes on."""
    copy = f"{target}-copy"
    try:
        if _exists(database, target):
            return
        if moment > database.newest_time:
            raise CannotRunError(f"{moment:%FT%TZ} is later than {database.newest_time:%FT%TZ}, the newest")
        # What an attempt that was interrupted left.
        database.remove(_TAG, environment, say)
        database.at(moment, copy, {_TAG: environment})
        database.wait(copy)
        copied = type(database)(database.rds, copy)
        copied.take_snapshot(target, {})
    finally:
        database.remove(_TAG, environment, say)


def _exists(database: Database, snapshot: str) -> bool:
    """Whether a snapshot is complete, whichever database it was taken of."""
    from botocore.exceptions import ClientError

    try:
        if isinstance(database, Cluster):
            found = database.rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=snapshot)
            snapshots = found["DBClusterSnapshots"]
        else:
            assert isinstance(database, Instance)  # noqa: S101 - there are two
            snapshots = database.rds.describe_db_snapshots(DBSnapshotIdentifier=snapshot)["DBSnapshots"]
    except ClientError as error:
        if "NotFound" in error.response["Error"]["Code"]:
            return False
        raise
    return any(each["Status"] == "available" for each in snapshots)


def _scale(deployment: Deployment, tasks: int) -> None:
    """Run so many tasks and wait; automatic scaling stays off while there are none."""
    ecs, cluster = deployment.client("ecs"), deployment.output("ClusterName")
    service = deployment.output("ServiceName")
    deployment.client("application-autoscaling").register_scalable_target(
        ServiceNamespace="ecs",
        ResourceId=f"service/{cluster}/{service}",
        ScalableDimension="ecs:service:DesiredCount",
        SuspendedState={"DynamicScalingInSuspended": not tasks, "DynamicScalingOutSuspended": not tasks},
    )
    ecs.update_service(cluster=cluster, service=service, desiredCount=tasks)
    ecs.get_waiter("services_stable").wait(cluster=cluster, services=[service], WaiterConfig=_STABLE)


def _deploy(environment: str) -> None:
    command = [
        "make",
        "deploy",
        f"ENV={environment}",
        "PREFLIGHT=no",
        "SMOKE=no",
        "ARGS=--require-approval never",
    ]
    if subprocess.run(command, cwd=_PROJECT, stdout=sys.stderr, check=False).returncode:
        raise FailedError(
            "the deployment failed, see above: run the same `make restore` again; "
            "the database that was there is kept in any case"
        )


def _smoke(deployment: Deployment, kept: str, say: Say) -> str:
    try:
        smoke(deployment, say)
    except CannotRunError as error:
        return f"not run: {error}; later: {later(deployment)}"
    except FailedError as error:
        if not kept:
            raise
        back = f"the way back: make restore ENV={deployment.name} SNAPSHOT={kept}"
        raise FailedError(f"{error}\n  {back}") from error
    return "every step passed"


def _ask(deployment: Deployment, database: Database, target: str) -> None:
    print(
        f"{database.name} of {deployment.name}, account {deployment.account}, is replaced by {target}. "
        "Whatever was written since is then in its last snapshot only. Restore? (yes/no) ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    if sys.stdin.readline().strip() != "yes":
        raise CannotRunError("nothing was done; YES=yes answers without a terminal")


def _name(deployment: Deployment, suffix: str) -> str:
    return f"{deployment.service}-{suffix}".lower()


def _report(
    environment: str, target: str, last: str, replaced: str, proof: str, seconds: Mapping[str, float]
) -> Report:
    document: dict[str, Any] = {
        "restored_from": target, "last_snapshot": last, "replaced": replaced, "smoke": proof,
        "seconds": dict(seconds),
    }  # fmt: skip
    lines = [
        f"restored from {target}",
        *(f"  {phase:<14} {spent:8.1f} s" for phase, spent in seconds.items()),
    ]
    lines.append(f"smoke: {proof}")
    lines.append(f"config/{environment}.toml names it: commit the file.")
    if last:
        lines.append(f"kept: {replaced}, and its last snapshot {last}; delete both when nobody needs them")
    text = "\n".join(lines)
    return Report(text=text, document=document)


COMMAND = Command(
    name="restore",
    help="put the database of a snapshot, or of a moment, in the place of the deployed one",
    run=_run,
    add_arguments=_add_arguments,
)
