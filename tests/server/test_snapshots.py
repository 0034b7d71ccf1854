"""A snapshot before a drain: named, waited for, of an instance or a cluster."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from mlflow_aws_server import snapshots

_INSTANCE = "arn:aws:rds:eu-central-1:123456789012:db:mlflowonaws-dev-foundation-database"
_CLUSTER = "arn:aws:rds:eu-central-1:123456789012:cluster:mlflowonaws-dev-foundation-database"


@pytest.fixture
def rds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    client = boto3.client("rds", region_name="eu-central-1")
    monkeypatch.setattr(boto3, "client", lambda *_, **__: client)
    monkeypatch.setattr(snapshots, "_POLL_SECONDS", 0.0)
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


def _instance(rds: Stubber, *statuses: str) -> None:
    made = {"DBInstanceIdentifier": _INSTANCE.split(":")[-1], "DBSnapshotIdentifier": "s"}
    rds.add_response("create_db_snapshot", {}, made)
    for status in statuses:
        answer: dict[str, Any] = {"DBSnapshots": [{"Status": status, "PercentProgress": 5}]}
        rds.add_response("describe_db_snapshots", answer, {"DBSnapshotIdentifier": "s"})


def test_its_name_fits_a_cluster_and_tells_environment_head_and_time() -> None:
    longest = "a" * 20
    called = snapshots.name(longest, head="dc11669786a5", now=dt.datetime(2026, 2, 3, 4, 5, 6))
    assert called == f"mlflow-{longest}-before-dc11669786a5-20260203-040506"
    assert len(called) == 63


def test_one_of_an_instance_is_waited_for(rds: Stubber) -> None:
    rds.add_client_error("create_db_snapshot", "InvalidDBInstanceState")
    _instance(rds, "creating", "available")
    snapshots.take(_INSTANCE, "s", seconds=60)


def test_one_of_a_cluster_is_waited_for(rds: Stubber) -> None:
    made = {"DBClusterIdentifier": _CLUSTER.split(":")[-1], "DBClusterSnapshotIdentifier": "s"}
    rds.add_response("create_db_cluster_snapshot", {}, made)
    rds.add_response(
        "describe_db_cluster_snapshots",
        {"DBClusterSnapshots": [{"Status": "available"}]},
        {"DBClusterSnapshotIdentifier": "s"},
    )
    snapshots.take(_CLUSTER, "s", seconds=60)


@pytest.mark.parametrize(("status", "seconds"), [("failed", 60), ("creating", -1)])
def test_without_one_nothing_goes_on(rds: Stubber, status: str, seconds: int) -> None:
    _instance(rds, status)
    with pytest.raises(snapshots.SnapshotError, match=f"the snapshot s is {status}"):
        snapshots.take(_INSTANCE, "s", seconds=seconds)


def test_a_refusal_is_told(rds: Stubber) -> None:
    rds.add_client_error("create_db_snapshot", "AccessDenied")
    with pytest.raises(ClientError, match="AccessDenied"):
        snapshots.take(_INSTANCE, "s", seconds=60)
