"""A configuration that would replace the database by an empty one is refused, with the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from preflight.restored import refusal
from stacks.config import DatabaseConfig

CLUSTER = {"Type": "AWS::RDS::DBCluster", "Properties": {}}
MEMBER = {"Type": "AWS::RDS::DBInstance", "Properties": {"DBClusterIdentifier": {"Ref": "Cluster"}}}
INSTANCE = {"Type": "AWS::RDS::DBInstance", "Properties": {}}
RESTORED = {"Type": "AWS::RDS::DBInstance", "Properties": {"DBSnapshotIdentifier": "before"}}
RESTORED_CLUSTER = {"Type": "AWS::RDS::DBCluster", "Properties": {"SnapshotIdentifier": "before"}}


class CloudFormation:
    """One deployed foundation."""

    def __init__(self, *resources: dict[str, Any]) -> None:
        self.template = {"Resources": {f"R{number}": each for number, each in enumerate(resources)}}

    def describe_stacks(self, **_: str) -> dict[str, Any]:
        return {"Stacks": [{}]}

    def get_template(self, **_: str) -> dict[str, Any]:
        return {"TemplateBody": self.template}


def asked(config: dict[str, Any], *deployed: dict[str, Any]) -> str | None:
    parsed = DatabaseConfig.model_validate({"instance_class": "t4g.medium", "max_connections": 100, **config})
    return refusal(lambda _: CloudFormation(*deployed), "dev", parsed)


@pytest.mark.parametrize(
    ("config", "deployed"),
    [
        ({}, [INSTANCE]),
        ({"engine": "aurora"}, [MEMBER, CLUSTER]),
        ({"restore_from": "before"}, [RESTORED]),
        ({"restore_from": "another"}, [RESTORED]),
        ({"restore_from": "before"}, [INSTANCE]),
        ({"engine": "aurora", "restore_from": "before"}, [INSTANCE]),
    ],
)
def test_what_keeps_the_rows_may_be_deployed(config: dict[str, Any], deployed: list[dict[str, Any]]) -> None:
    assert asked(config, *deployed) is None


@pytest.mark.parametrize("deployed", [[RESTORED], [MEMBER, RESTORED_CLUSTER]])
def test_a_restored_database_is_not_replaced_by_an_empty_one(deployed: list[dict[str, Any]]) -> None:
    told = asked({}, *deployed)
    assert told is not None
    assert 'restore_from = "before" is deployed' in told
    assert told.endswith("Write the line again")


def test_another_engine_without_a_snapshot_is_refused() -> None:
    told = asked({"engine": "aurora"}, INSTANCE)
    assert told is not None
    assert 'engine = "postgresql" is deployed' in told
