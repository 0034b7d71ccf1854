"""The checks of the database when it is an Aurora cluster, with answers as RDS shapes them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from verify_account import database
from verify_account.account import Account
from verify_account.templates import Resource

KEY = "arn:aws:kms:eu-central-1:111122223333:key/k"
ANSWERS: dict[str, Any] = {
    "describe_db_instances": {
        "DBInstances": [
            {
                "DBInstanceIdentifier": name,
                "DBClusterIdentifier": "cluster",
                "PubliclyAccessible": False,
                "Endpoint": {"Address": f"{name}.example.com", "Port": 5433},
            }
            for name in ("writer", "reader")
        ]
    },
    "describe_db_clusters": {
        "DBClusters": [
            {
                "DBClusterIdentifier": "cluster",
                "Endpoint": "cluster.example.com",
                "Port": 5433,
                "DBClusterMembers": [{"DBInstanceIdentifier": name} for name in ("writer", "reader")],
                "DBClusterParameterGroup": "parameters",
                "IAMDatabaseAuthenticationEnabled": True,
                "StorageEncrypted": True,
                "KmsKeyId": KEY,
                "DeletionProtection": True,
                "BackupRetentionPeriod": 7,
                "MasterUserSecret": {"SecretStatus": "active"},
            }
        ]
    },
    "describe_db_cluster_parameters": {
        "Parameters": [{"ParameterName": "rds.force_ssl", "ParameterValue": "1"}]
    },
    "describe_db_cluster_snapshots": {"DBClusterSnapshots": [{"DBClusterSnapshotIdentifier": "s"}]},
    "describe_db_cluster_snapshot_attributes": {
        "DBClusterSnapshotAttributesResult": {
            "DBClusterSnapshotAttributes": [{"AttributeName": "restore", "AttributeValues": []}]
        }
    },
}


class _Answered(Account):
    """An account with these answers, and stacks with a cluster and its writer."""

    answers: dict[str, Any]
    resources = [  # noqa: RUF012
        Resource("AWS::RDS::DBInstance", "Writer", "writer", {}),
        Resource("AWS::RDS::DBCluster", "Cluster", "cluster", {"KmsKeyId": KEY, "DeletionProtection": True}),
        Resource("AWS::RDS::DBClusterParameterGroup", "Parameters", "parameters", {}),
    ]

    def ask(self, service: str, operation: str, **_: Any) -> Any:
        return self.answers[operation]


def failed(answers: dict[str, Any]) -> list[str]:
    account = _Answered(lambda _: None, {"DatabaseEndpoint": "cluster.example.com:5433"})
    account.answers = answers
    return [check.title for check in database.CHECKS if not check.look(account)[0]]


def test_a_cluster_as_designed_passes() -> None:
    assert failed(ANSWERS) == []


@pytest.mark.parametrize(
    ("changed", "title"),
    [
        ({"IAMDatabaseAuthenticationEnabled": False}, "the database accepts IAM tokens"),
        ({"KmsKeyId": "other"}, "the database is encrypted under its own key"),
        ({"DeletionProtection": False}, "the database is protected from deletion, if so configured"),
        ({"BackupRetentionPeriod": 1}, "backups are kept for 7 days or more"),
        ({"DBClusterParameterGroup": "default"}, "the database has the stack's parameters"),
        ({"MasterUserSecret": None}, "RDS keeps the administrator's password"),
    ],
)
def test_a_cluster_that_differs_fails_its_check(changed: dict[str, Any], title: str) -> None:
    answers = copy.deepcopy(ANSWERS)
    answers["describe_db_clusters"]["DBClusters"][0] |= changed
    assert failed(answers) == [title]


def test_a_public_reader_and_a_shared_snapshot_are_seen() -> None:
    answers = copy.deepcopy(ANSWERS)
    answers["describe_db_instances"]["DBInstances"][1]["PubliclyAccessible"] = True
    result = answers["describe_db_cluster_snapshot_attributes"]["DBClusterSnapshotAttributesResult"]
    result["DBClusterSnapshotAttributes"][0]["AttributeValues"] = ["all"]
    assert failed(answers) == ["the database is not public", "no snapshot of the database is shared"]
