"""A copy of the database is as the living one, seen by nobody else, and gone when it has to be."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest

from operations import database
from operations.database import Cluster, Instance
from tests.operations.answers import Scripted, error

MADE = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
TAGS = {"mlflow-on-aws:scratch": "dev"}
TAG_LIST = [{"Key": "mlflow-on-aws:scratch", "Value": "dev"}]
INSTANCE: Mapping[str, Any] = {
    "DBInstanceIdentifier": "living",
    "DBInstanceClass": "db.m7g.large",
    "DBInstanceStatus": "available",
    "DBSubnetGroup": {"DBSubnetGroupName": "isolated"},
    "DBParameterGroups": [{"DBParameterGroupName": "ours"}],
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1"}],
    "Endpoint": {"Address": "living.rds", "Port": 5433},
    "DbiResourceId": "db-LIVING",
    "LatestRestorableTime": MADE,
}
CLUSTER: Mapping[str, Any] = {
    "DBClusterIdentifier": "living",
    "Engine": "aurora-postgresql",
    "EngineVersion": "17.6",
    "DBSubnetGroup": "isolated",
    "DBClusterParameterGroup": "ours",
    "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1"}],
    "Port": 5433,
    "ServerlessV2ScalingConfiguration": {"MinCapacity": 0.5, "MaxCapacity": 8.0},
    "DBClusterMembers": [{"DBInstanceIdentifier": "writer", "IsClusterWriter": True}],
    "DbClusterResourceId": "cluster-LIVING",
}


def rds(**answers: Any) -> Scripted:
    made = {"DbiResourceId": "db-COPY", "DbClusterResourceId": "cluster-COPY"}
    known = {
        "describe_db_instances": lambda **_: {"DBInstances": [INSTANCE]},
        "describe_db_clusters": lambda **_: {"DBClusters": [CLUSTER]},
        "describe_db_snapshots": lambda **_: {"DBSnapshots": []},
        "describe_db_cluster_snapshots": lambda **_: {"DBClusterSnapshots": []},
        **dict.fromkeys(
            (
                "restore_db_instance_from_db_snapshot",
                "restore_db_instance_to_point_in_time",
                "restore_db_cluster_from_snapshot",
                "restore_db_cluster_to_point_in_time",
                "create_db_instance",
                "delete_db_instance",
                "delete_db_cluster",
                "delete_db_snapshot",
                "create_db_snapshot",
            ),
            lambda **_: {"DBInstance": made, "DBCluster": made},
        ),
    }
    return Scripted({**known, **answers}, "rds")


@pytest.mark.parametrize(
    ("restore", "call"),
    [
        (lambda living: living.from_snapshot("s", "copy", TAGS), "restore_db_instance_from_db_snapshot"),
        (lambda living: living.at(MADE, "copy", TAGS), "restore_db_instance_to_point_in_time"),
    ],
)
def test_a_copied_instance_is_private_marked_and_unprotected(restore: Any, call: str) -> None:
    service = rds()
    assert restore(Instance(service, "living")) == "db-COPY"
    (asked,) = service.asked(call)
    like = {
        "DBInstanceClass": "db.m7g.large",
        "DBSubnetGroupName": "isolated",
        "DBParameterGroupName": "ours",
    }
    assert asked.items() >= like.items()
    assert (asked["VpcSecurityGroupIds"], asked["Port"], asked["Tags"]) == (["sg-1"], 5433, TAG_LIST)
    assert asked["EnableIAMDatabaseAuthentication"] is True
    assert [asked[each] for each in ("PubliclyAccessible", "DeletionProtection", "MultiAZ")] == [False] * 3


@pytest.mark.parametrize(
    ("restore", "call"),
    [
        (lambda living: living.from_snapshot("s", "copy", TAGS), "restore_db_cluster_from_snapshot"),
        (lambda living: living.at(MADE, "copy", TAGS), "restore_db_cluster_to_point_in_time"),
    ],
)
def test_a_copied_cluster_has_one_instance_like_the_writer(restore: Any, call: str) -> None:
    service = rds()
    assert restore(Cluster(service, "living")) == "cluster-COPY"
    (asked,) = service.asked(call)
    assert asked["DBClusterIdentifier"] == "copy"
    assert asked["DBClusterParameterGroupName"] == "ours"
    assert asked["ServerlessV2ScalingConfiguration"] == CLUSTER["ServerlessV2ScalingConfiguration"]
    assert (asked["DeletionProtection"], asked["Tags"]) == (False, TAG_LIST)
    (instance,) = service.asked("create_db_instance")
    assert instance["DBClusterIdentifier"] == "copy"
    assert (instance["DBInstanceClass"], instance["PubliclyAccessible"]) == ("db.m7g.large", False)
    assert instance["Tags"] == TAG_LIST


def test_only_what_carries_the_tag_of_the_environment_is_removed() -> None:
    def tagged(name: str, value: str) -> dict[str, Any]:
        return {
            "DBInstanceIdentifier": name,
            "DBSnapshotIdentifier": name,
            "SnapshotType": "manual",
            "TagList": [{"Key": "mlflow-on-aws:scratch", "Value": value}],
        }

    service = rds(
        describe_db_instances=lambda **_: {
            "DBInstances": [INSTANCE, tagged("old", "dev"), tagged("other", "prod")]
        },
        describe_db_snapshots=lambda **_: {
            # RDS takes its own of a copy, with the copy's tags, and deletes them with it.
            "DBSnapshots": [tagged("fresh", "dev"), {**tagged("own", "dev"), "SnapshotType": "automated"}]
        },
    )
    Instance(service, "living").remove("mlflow-on-aws:scratch", "dev", lambda _: None)
    assert service.asked("delete_db_instance") == [
        {"DBInstanceIdentifier": "old", "SkipFinalSnapshot": True, "DeleteAutomatedBackups": True}
    ]
    assert service.asked("delete_db_snapshot") == [{"DBSnapshotIdentifier": "fresh"}]


def test_what_is_being_made_is_deleted_once_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "POLL_SECONDS", 0)
    refusals = [error("InvalidDBInstanceState")]
    copy = {"DBInstanceIdentifier": "copy", "TagList": TAG_LIST}

    def delete(**_: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return {"DBInstance": copy}

    service = rds(describe_db_instances=lambda **_: {"DBInstances": [copy]}, delete_db_instance=delete)
    said: list[str] = []
    Instance(service, "living").remove("mlflow-on-aws:scratch", "dev", said.append)
    assert len(service.asked("delete_db_instance")) == 2
    assert said[-1] == "copy: is being deleted"


def test_the_newest_snapshot_that_is_complete_is_last() -> None:
    def snapshot(name: str, days: int, status: str = "available") -> dict[str, Any]:
        made = MADE + dt.timedelta(days=days)
        return {
            "DBSnapshotIdentifier": name,
            "SnapshotCreateTime": made,
            "AllocatedStorage": 20,
            "Status": status,
        }

    service = rds(
        describe_db_snapshots=lambda **_: {
            "DBSnapshots": [snapshot("b", 2), snapshot("c", 3, "creating"), snapshot("a", 1)]
        }
    )
    assert [each.name for each in Instance(service, "living").snapshots()] == ["a", "b"]
    assert service.asked("describe_db_snapshots") == [{"DBInstanceIdentifier": "living"}]
