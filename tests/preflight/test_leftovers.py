"""A first deployment that failed is cleared away, protections and all; nothing else is touched."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from preflight.leftovers import clear
from preflight.protection import Client, clients_by_stack
from preflight.removal import attachments, refusals
from tests.local.conftest import Account, account  # noqa: F401 - a fixture

POOL = {"Type": "AWS::Cognito::UserPool", "Properties": {"DeletionProtection": "ACTIVE"}}
LOAD_BALANCER = {
    "Type": "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "Properties": {
        "Type": "application",
        "LoadBalancerAttributes": [{"Key": "deletion_protection.enabled", "Value": "true"}],
    },
}
DATABASE = {
    "Type": "AWS::RDS::DBInstance",
    "DeletionPolicy": "Snapshot",
    "Properties": {
        "DBInstanceClass": "db.t4g.micro",
        "Engine": "postgres",
        "AllocatedStorage": "20",
        "MasterUsername": "administrator",
        "ManageMasterUserPassword": True,
        "DeletionProtection": True,
    },
}
FAILS = {
    "Type": "Custom::Broken",
    "DependsOn": ["Pool", "LoadBalancer", "Database"],
    "Properties": {"ServiceToken": "arn:aws:lambda:eu-central-1:000000000000:function:none"},
}
WHOLE = {"Pool": POOL, "LoadBalancer": LOAD_BALANCER, "Database": DATABASE}


@pytest.fixture
def cloudformation(account: Account) -> Any:  # noqa: F811
    return account.aws.client("cloudformation")


def stacks_of(account: Account, name: str) -> dict[str, Client]:  # noqa: F811
    """The stacks of an environment with a second region."""
    config: Any = SimpleNamespace(backup=SimpleNamespace(recovery=SimpleNamespace(region="eu-west-1")))
    return clients_by_stack(
        name, config, lambda region=account.aws.region: dataclasses.replace(account.aws, region=region).client
    )


def create(cloudformation: Any, name: str, resources: dict[str, Any]) -> str:
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps({"Resources": resources}),
        EnableTerminationProtection=True,
        Capabilities=["CAPABILITY_IAM"],
    )
    while (status := status_of(cloudformation, name)).endswith("_IN_PROGRESS"):
        pass
    return status


def status_of(cloudformation: Any, name: str) -> str:
    found = [each for each in cloudformation.describe_stacks()["Stacks"] if each["StackName"] == name]
    return str(found[0]["StackStatus"]) if found else ""


def test_a_failed_creation_is_removed_despite_its_protections(account: Account, cloudformation: Any) -> None:  # noqa: F811
    name = "MlflowOnAws-failed-Foundation"
    assert create(cloudformation, name, {**WHOLE, "Broken": FAILS}) == "ROLLBACK_FAILED"
    said: list[str] = []
    assert clear(stacks_of(account, "failed"), said.append)
    assert status_of(cloudformation, name) == ""
    assert "termination protection off" in " ".join(said)
    assert sum("deletion protection off" in line for line in said) == 3
    left = account.aws.client("rds").describe_db_instances()["DBInstances"]
    assert [each["DBInstanceIdentifier"] for each in left] == ["tested"]
    assert account.aws.client("cognito-idp").list_user_pools(MaxResults=60)["UserPools"] == []
    assert account.aws.client("elbv2").describe_load_balancers()["LoadBalancers"] == []


def test_so_is_that_of_the_second_region_s_stack(account: Account) -> None:  # noqa: F811
    stacks = stacks_of(account, "twice")
    there = stacks["MlflowOnAws-twice-Recovery"]("cloudformation")
    broken = {key: value for key, value in FAILS.items() if key != "DependsOn"}
    assert create(there, "MlflowOnAws-twice-Recovery", {"Broken": broken}) == "ROLLBACK_COMPLETE"
    assert refusals(stacks) == ["MlflowOnAws-twice-Recovery: termination_protection"]
    assert clear(stacks, print)
    assert status_of(there, "MlflowOnAws-twice-Recovery") == ""


def test_a_complete_stack_is_not_touched(account: Account, cloudformation: Any) -> None:  # noqa: F811
    name = "MlflowOnAws-complete-Service"
    assert create(cloudformation, name, {"LoadBalancer": LOAD_BALANCER}) == "CREATE_COMPLETE"
    said: list[str] = []
    assert clear(stacks_of(account, "complete"), said.append)
    assert said == []
    assert status_of(cloudformation, name) == "CREATE_COMPLETE"


def test_a_deletion_that_failed_later_is_not_touched(account: Account, cloudformation: Any) -> None:  # noqa: F811
    name = "MlflowOnAws-used-Foundation"
    assert create(cloudformation, name, {"Database": DATABASE}) == "CREATE_COMPLETE"
    cloudformation.update_termination_protection(StackName=name, EnableTerminationProtection=False)
    cloudformation.delete_stack(StackName=name)
    while (status := status_of(cloudformation, name)).endswith("_IN_PROGRESS"):
        pass
    assert status == "DELETE_FAILED"
    assert clear(stacks_of(account, "used"), print)
    assert status_of(cloudformation, name) == "DELETE_FAILED"


def test_what_protects_a_stack_is_told_with_its_settings(account: Account, cloudformation: Any) -> None:  # noqa: F811
    name = "MlflowOnAws-protected-Foundation"
    assert create(cloudformation, name, WHOLE) == "CREATE_COMPLETE"
    told = refusals(stacks_of(account, "protected"))
    assert sorted(each.rsplit(": ", 1)[1] for each in told) == [
        "database.deletion_protection",
        "ingress.deletion_protection",
        "termination_protection",
    ]


def test_a_policy_of_the_stack_that_a_role_of_somebody_has_is_told(
    account: Account,  # noqa: F811
    cloudformation: Any,
) -> None:
    name, statement = (
        "MlflowOnAws-attached-Foundation",
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
    )
    document = {"Version": "2012-10-17", "Statement": [statement]}
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "*"}]}
    policy = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": document}}
    role = {
        "Type": "AWS::IAM::Role",
        "Properties": {"AssumeRolePolicyDocument": trust, "ManagedPolicyArns": [{"Ref": "Policy"}]},
    }
    assert create(cloudformation, name, {"Policy": policy, "Role": role}) == "CREATE_COMPLETE"
    assert attachments(stacks_of(account, "attached")) == []
    iam = account.aws.client("iam")
    iam.create_role(RoleName="somebody", AssumeRolePolicyDocument=json.dumps(trust))
    resources = cloudformation.list_stack_resources(StackName=name)["StackResourceSummaries"]
    arns = [each["PhysicalResourceId"] for each in resources if each["ResourceType"] == policy["Type"]]
    iam.attach_role_policy(RoleName="somebody", PolicyArn=arns[0])
    assert attachments(stacks_of(account, "attached")) == [f"{arns[0]} is attached to somebody: detach it"]
