"""AWS's own examples of events, and whether the rules pick them."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.stacks.monitoring.test_alarms import rules_of
from tests.stacks.templates import Assembly

# As in the documents that stacks/monitoring/notices.py names; `resources` are filled in from the rule.
EVENTS: Mapping[str, dict[str, Any]] = {
    "DeploymentFailed": {
        "source": "aws.ecs",
        "detail-type": "ECS Deployment State Change",
        "time": "2026-11-28T12:31:14Z",
        "detail": {
            "eventType": "ERROR",
            "eventName": "SERVICE_DEPLOYMENT_FAILED",
            "deploymentId": "ecs-svc/123",
            "updatedAt": "2026-11-28T11:11:11Z",
            "reason": "ECS deployment circuit breaker: task failed to start.",
        },
    },
    "DatabaseEvent": {
        "source": "aws.rds",
        "detail-type": "RDS DB Instance Event",
        "time": "2026-11-28T12:31:14Z",
        "detail": {
            "EventCategories": ["failover"],
            "SourceType": "DB_INSTANCE",
            "Date": "2026-11-28T17:31:14.000Z",
            "Message": "A failover for the DB instance has completed.",
            "EventID": "RDS-EVENT-0049",
        },
    },
    "BackupFailed": {
        "source": "aws.backup",
        "detail-type": "Backup Job State Change",
        "time": "2026-11-28T12:31:14Z",
        "detail": {
            "backupJobId": "34176239-e96d-4e4a-9fad-529dbb3c3556",
            "backupVaultName": "vault",
            "state": "FAILED",
            "statusMessage": "Backup job failed because backup vault vault does not exist.",
        },
    },
}


def picks(pattern: Any, event: Any) -> bool:
    """Exact matching of EventBridge: every key, by one of its values; an array by one of its members."""
    if isinstance(pattern, dict):
        return all(
            isinstance(event, dict) and key in event and picks(each, event[key])
            for key, each in pattern.items()
        )
    return any(each in pattern for each in (event if isinstance(event, list) else [event]))


def test_every_rule_picks_awss_own_example_and_no_other_deployments(prod: Assembly) -> None:
    rules = rules_of(prod.service)
    assert set(rules) == set(EVENTS)
    for name, rule in rules.items():
        pattern, event = rule["EventPattern"], copy.deepcopy(EVENTS[name])
        event["resources"] = pattern.get("resources", [])[:1]
        if "resourceArn" in pattern["detail"]:
            event["detail"]["resourceArn"] = pattern["detail"]["resourceArn"][-1]
        assert picks(pattern, event), name
        event["resources"] = ["arn:of:another"]
        event["detail"]["resourceArn"] = "arn:of:another"
        assert not picks(pattern, event), name


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("DeploymentFailed", "eventName", "SERVICE_DEPLOYMENT_COMPLETED"),
        ("DatabaseEvent", "EventCategories", ["backup"]),
        ("BackupFailed", "state", "COMPLETED"),
    ],
)
def test_what_went_well_is_no_notice(name: str, path: str, value: Any, prod: Assembly) -> None:
    pattern = rules_of(prod.service)[name]["EventPattern"]
    assert value not in pattern["detail"][path]
    assert not picks(pattern["detail"][path], value)


def test_a_notice_holds_the_events_own_words_and_its_section(prod: Assembly) -> None:
    for name, rule in rules_of(prod.service).items():
        (target,) = rule["Targets"]
        assert "Tickets" in json.dumps(target["Arn"])
        paths = target["InputTransformer"]["InputPathsMap"]
        assert paths["words"].removeprefix("$.detail.") in EVENTS[name]["detail"]
        assert target["InputTransformer"]["InputTemplate"].endswith(
            f'<words> docs/runbook.md#{name.lower()}"'
        )


def test_without_backups_nobody_is_told_of_one(dev: Assembly) -> None:
    assert "BackupFailed" not in rules_of(dev.service)
