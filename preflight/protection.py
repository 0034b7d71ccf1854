"""What refuses to be deleted, which setting says so, and how to lift it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stacks.config import EnvironmentConfig

# A boto3 client by service name, in the environment's region.
Client = Callable[[str], Any]


@dataclass(frozen=True)
class Protected:
    """A kind of resource that may be protected from deletion."""

    called: str
    service: str
    # The setting that protects it, where it has one.
    setting: str
    is_on: Callable[[Any, str], bool]
    lift: Callable[[Any, str], object]


def _load_balancer_is_protected(elbv2: Any, arn: str) -> bool:
    attributes = elbv2.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    return {"Key": "deletion_protection.enabled", "Value": "true"} in attributes


KINDS: Mapping[str, Protected] = {
    "AWS::RDS::DBInstance": Protected(
        "the database",
        "rds",
        "database.deletion_protection",
        lambda rds, name: bool(
            rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]["DeletionProtection"]
        ),
        lambda rds, name: rds.modify_db_instance(
            DBInstanceIdentifier=name, DeletionProtection=False, ApplyImmediately=True
        ),
    ),
    "AWS::RDS::DBCluster": Protected(
        "the database's cluster",
        "rds",
        "database.deletion_protection",
        lambda rds, name: bool(
            rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]["DeletionProtection"]
        ),
        lambda rds, name: rds.modify_db_cluster(
            DBClusterIdentifier=name, DeletionProtection=False, ApplyImmediately=True
        ),
    ),
    "AWS::ElasticLoadBalancingV2::LoadBalancer": Protected(
        "the load balancer",
        "elbv2",
        "ingress.deletion_protection",
        _load_balancer_is_protected,
        lambda elbv2, arn: elbv2.modify_load_balancer_attributes(
            LoadBalancerArn=arn, Attributes=[{"Key": "deletion_protection.enabled", "Value": "false"}]
        ),
    ),
    "AWS::Cognito::UserPool": Protected(
        "the user pool",
        "cognito-idp",
        "",
        lambda cognito, pool: (
            cognito.describe_user_pool(UserPoolId=pool)["UserPool"].get("DeletionProtection") == "ACTIVE"
        ),
        # Whatever else an update does not name is reset; it is about to be deleted.
        lambda cognito, pool: cognito.update_user_pool(UserPoolId=pool, DeletionProtection="INACTIVE"),
    ),
}


def stack_names(environment: str) -> tuple[str, str]:
    """The stacks of an environment, in the order in which they are deleted."""
    return f"MlflowOnAws-{environment}-Service", f"MlflowOnAws-{environment}-Foundation"


def clients_by_stack(
    environment: str, config: EnvironmentConfig, clients: Callable[..., Client]
) -> dict[str, Client]:
    """The stacks that the file asks for, in the order in which they are deleted, each with its region."""
    found = dict.fromkeys(stack_names(environment), clients())
    if config.backup and config.backup.recovery:
        found[f"MlflowOnAws-{environment}-Recovery"] = clients(region=config.backup.recovery.region)
    return found


def describe(cloudformation: Any, name: str) -> dict[str, Any] | None:
    """The stack, or None if there is none."""
    from botocore.exceptions import ClientError

    try:
        described: dict[str, Any] = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return described


def resources(client: Client, stack: str) -> Iterator[tuple[str, str]]:
    """Types and ids of the stack's resources that exist."""
    pages = client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    for resource in (each for page in pages for each in page["StackResourceSummaries"]):
        if resource.get("PhysicalResourceId") and resource["ResourceStatus"] != "DELETE_COMPLETE":
            yield resource["ResourceType"], resource["PhysicalResourceId"]


def protected_resources(client: Client, stack: str) -> Iterator[tuple[Protected, str]]:
    """The stack's resources, with their ids, that refuse to be deleted now."""
    for resource_type, name in resources(client, stack):
        kind = KINDS.get(resource_type)
        if kind is not None and _is_on(client, kind, name):
            yield kind, name


def _is_on(client: Client, kind: Protected, name: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        return kind.is_on(client(kind.service), name)
    except ClientError as error:
        if "NotFound" in error.response["Error"]["Code"]:
            return False
        raise
