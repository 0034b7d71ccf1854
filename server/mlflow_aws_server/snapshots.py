"""A named snapshot of the database, of an RDS instance or an Aurora cluster."""

from __future__ import annotations

import datetime as dt

from botocore.exceptions import ClientError

from mlflow_aws_server.progress import Patience

_POLL_SECONDS = 5.0
# A backup or another snapshot is under way.
_BUSY = ("InvalidDBInstanceState", "InvalidDBClusterStateFault")


class SnapshotError(RuntimeError):
    """RDS made no snapshot."""


def name(environment: str, *, head: str, now: dt.datetime) -> str:
    """What a snapshot is called: the environment, `before`, the head to come, and the time.

    The migration's role may make snapshots of such names.
    """
    return f"mlflow-{environment}-before-{head}-{now:%Y%m%d-%H%M%S}"


def take(database_arn: str, called: str, *, seconds: float) -> None:
    """Make a snapshot, and wait until it can be restored.

    Raises:
        SnapshotError: it failed, or took longer than `seconds`.
        ClientError: RDS refused.
    """
    import boto3

    region, kind, database = (database_arn.split(":")[each] for each in (3, 5, 6))
    rds = boto3.client("rds", region_name=region)
    waiting = Patience("migrate", seconds=seconds, poll=_POLL_SECONDS, phase="snapshot", snapshot=called)

    def create() -> None:
        if kind == "cluster":
            rds.create_db_cluster_snapshot(DBClusterIdentifier=database, DBClusterSnapshotIdentifier=called)
        else:
            rds.create_db_snapshot(DBInstanceIdentifier=database, DBSnapshotIdentifier=called)

    def status() -> tuple[str, int]:
        if kind == "cluster":
            made = rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=called)
            [snapshot] = made["DBClusterSnapshots"]
        else:
            [snapshot] = rds.describe_db_snapshots(DBSnapshotIdentifier=called)["DBSnapshots"]
        return snapshot["Status"], snapshot.get("PercentProgress", 0)

    while True:
        try:
            create()
            break
        except ClientError as error:
            if error.response["Error"]["Code"] not in _BUSY or not waiting.wait(str(error)):
                raise
    while True:
        now, percent = status()
        if now == "available":
            return
        if now == "failed" or not waiting.wait(f"the snapshot is {now}, {percent} %"):
            raise SnapshotError(f"the snapshot {called} is {now} after {waiting.waited:.0f} s")
