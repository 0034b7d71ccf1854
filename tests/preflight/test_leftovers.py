"""A first deployment that failed is cleared away, protections and all; nothing else is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest

from preflight.leftovers import clear
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
    assert clear(account.aws.client, "failed", said.append)
    assert status_of(cloudformation, name) == ""
    assert "termination protection off" in " ".join(said)
    assert sum("deletion protection off" in line for line in said) == 3
    left = account.aws.client("rds").describe_db_instances()["DBInstances"]
    assert [each["DBInstanceIdentifier"] for each in left] == ["tested"]
    assert account.aws.client("cognito-idp").list_user_pools(MaxResults=60)["UserPools"] == []
    assert account.aws.client("elbv2").describe_load_balancers()["LoadBalancers"] == []


def test_a_complete_stack_is_not_touched(account: Account, cloudformation: Any) -> None:  # noqa: F811
    name = "MlflowOnAws-complete-Service"
    assert create(cloudformation, name, {"LoadBalancer": LOAD_BALANCER}) == "CREATE_COMPLETE"
    said: list[str] = []
    assert clear(account.aws.client, "complete", said.append)
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
    assert clear(account.aws.client, "used", print)
    assert status_of(cloudformation, name) == "DELETE_FAILED"


def test_what_protects_a_stack_is_told_with_its_settings(account: Account, cloudformation: Any) -> None:  # noqa: F811
    name = "MlflowOnAws-protected-Foundation"
    assert create(cloudformation, name, WHOLE) == "CREATE_COMPLETE"
    told = refusals(account.aws.client, [name, "MlflowOnAws-absent-Foundation"])
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
    assert attachments(account.aws.client, [name]) == []
    iam = account.aws.client("iam")
    iam.create_role(RoleName="somebody", AssumeRolePolicyDocument=json.dumps(trust))
    resources = cloudformation.list_stack_resources(StackName=name)["StackResourceSummaries"]
    arns = [each["PhysicalResourceId"] for each in resources if each["ResourceType"] == policy["Type"]]
    iam.attach_role_policy(RoleName="somebody", PolicyArn=arns[0])
    assert attachments(account.aws.client, [name]) == [f"{arns[0]} is attached to somebody: detach it"]
