"""Asks the deployed resources whether they are what the stacks say.

Emulators report success with holes in it: a bucket without its encryption, a database without IAM. What
these stacks promise is looked up here after the deployment, through the same API that an auditor would use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from local import identity_promises
from local.deployment import Stack
from local.identity_promises import Promise
from local.parts.aws import Aws


@dataclass(frozen=True)
class Finding:
    """A promise that the deployed resources do not keep."""

    promise: str
    seen: str


def verify(aws: Aws, foundation: Stack, service: Stack) -> tuple[int, list[Finding]]:
    """Check every promise; returns how many there were, and those that are not kept."""
    findings = []
    promises = [promise for part in _PARTS for promise in part(aws, foundation, service)]
    for text, kept, seen in promises:
        if not kept:
            findings.append(Finding(text, str(seen)))
    return len(promises), findings


def _artifacts(aws: Aws, _foundation: Stack, service: Stack) -> list[Promise]:
    s3, bucket = aws.client("s3"), service.outputs["ArtifactBucket"]
    encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    default = encryption["ApplyServerSideEncryptionByDefault"]
    blocked = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    owner = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    lifecycle = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    denies = [each for each in policy["Statement"] if each["Effect"] == "Deny"]
    versioning = s3.get_bucket_versioning(Bucket=bucket).get("Status")
    return [
        ("artifacts are versioned", versioning == "Enabled", versioning),
        (
            "artifacts are encrypted with their own key, by a bucket key",
            default["SSEAlgorithm"] == "aws:kms"
            and default.get("KMSMasterKeyID") == service.outputs["ArtifactKeyArn"]
            and encryption["BucketKeyEnabled"],
            encryption,
        ),
        ("the bucket blocks all public access", all(blocked.values()) and len(blocked) == 4, blocked),
        (
            "the bucket refuses requests without TLS",
            any("aws:SecureTransport" in json.dumps(each.get("Condition", {})) for each in denies),
            policy,
        ),
        (
            "nobody deletes object versions",
            any("s3:DeleteObjectVersion" in _list(each["Action"]) for each in denies),
            policy,
        ),
        ("objects belong to the bucket's owner", owner[0]["ObjectOwnership"] == "BucketOwnerEnforced", owner),
        (
            "uploads that never finish are removed",
            any("AbortIncompleteMultipartUpload" in each for each in lifecycle),
            lifecycle,
        ),
        (
            "access to the bucket is logged",
            "LoggingEnabled" in s3.get_bucket_logging(Bucket=bucket),
            "no logging",
        ),
    ]


def _database(aws: Aws, foundation: Stack, _service: Stack) -> list[Promise]:
    rds = aws.client("rds")
    identifier = foundation.of_type("AWS::RDS::DBInstance")[0]
    instance = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"][0]
    group = instance["DBParameterGroups"][0]["DBParameterGroupName"]
    pages = rds.get_paginator("describe_db_parameters").paginate(DBParameterGroupName=group)
    parameters = {
        each["ParameterName"]: each.get("ParameterValue") for page in pages for each in page["Parameters"]
    }
    secret = instance.get("MasterUserSecret") or {}
    return [
        ("the database accepts IAM tokens", instance["IAMDatabaseAuthenticationEnabled"], instance),
        ("the database is encrypted", instance["StorageEncrypted"] and bool(instance["KmsKeyId"]), instance),
        ("the database is not public", not instance["PubliclyAccessible"], instance),
        ("backups are kept for 7 days or more", instance["BackupRetentionPeriod"] >= 7, instance),
        (
            "the database requires TLS",
            parameters.get("rds.force_ssl") == "1",
            parameters.get("rds.force_ssl"),
        ),
        ("RDS keeps the administrator's password", secret.get("SecretStatus") == "active", secret),
    ]


def _tasks(aws: Aws, foundation: Stack, service: Stack) -> list[Promise]:
    ecs = aws.client("ecs")
    described = ecs.describe_services(
        cluster=service.outputs["ClusterName"], services=[service.outputs["ServiceName"]]
    )["services"][0]
    definition = ecs.describe_task_definition(taskDefinition=described["taskDefinition"])["taskDefinition"]
    container = definition["containerDefinitions"][0]
    environment = {each["name"] for each in container["environment"]}
    resource = _database_resource(aws, foundation)
    granted = _granted(aws, definition["taskRoleArn"])
    connects = [each for each in granted if "rds-db:connect" in _list(each["Action"])]
    wildcards = [each for each in granted if "*" in _list(each["Resource"])]
    return [
        (
            "the task's role and its execution role are two",
            definition["taskRoleArn"] and definition["taskRoleArn"] != definition["executionRoleArn"],
            definition,
        ),
        (
            "the server may not write to its root file system",
            container.get("readonlyRootFilesystem"),
            container,
        ),
        (
            "the server is not root",
            container.get("user") not in (None, "", "0", "root"),
            container.get("user"),
        ),
        ("the container has a health check", bool(container["healthCheck"].get("command")), container),
        (
            "no key and no password is in the task definition",
            not container.get("secrets")
            and not any(
                word in name for name in environment for word in ("PASSWORD", "SECRET", "ACCESS_KEY")
            ),
            sorted(environment),
        ),
        (
            "the server's role signs in as one database user",
            [_list(each["Resource"]) for each in connects] == [[f"{resource}/mlflow_server"]],
            connects,
        ),
        ("the server's role has no wildcard resource", not wildcards, wildcards),
        ("a failing release is rolled back", _rolls_back(described), described["deploymentConfiguration"]),
    ]


def _entrance(aws: Aws, _foundation: Stack, service: Stack) -> list[Promise]:
    elb = aws.client("elbv2")
    arn = service.of_type("AWS::ElasticLoadBalancingV2::LoadBalancer")[0]
    listeners = elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]
    attributes = {
        each["Key"]: each["Value"]
        for each in elb.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    }
    group = elb.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"][0]
    return [
        (
            "the only listener is HTTPS on 443, TLS 1.3 only",
            [
                (each["Protocol"], each["Port"], each["SslPolicy"].startswith("ELBSecurityPolicy-TLS13-1-3"))
                for each in listeners
            ]
            == [("HTTPS", 443, True)],
            listeners,
        ),
        (
            "invalid headers are dropped",
            attributes.get("routing.http.drop_invalid_header_fields.enabled") == "true",
            attributes,
        ),
        ("requests are logged", attributes.get("access_logs.s3.enabled") == "true", attributes),
        ("targets are healthy when /ready says so", group["HealthCheckPath"] == "/ready", group),
    ]


_PARTS: Sequence[Callable[[Aws, Stack, Stack], list[Promise]]] = (
    _artifacts,
    _database,
    _tasks,
    _entrance,
    identity_promises.programs,
    identity_promises.people,
    identity_promises.rules,
)


def _database_resource(aws: Aws, foundation: Stack) -> str:
    identifier = foundation.of_type("AWS::RDS::DBInstance")[0]
    found = aws.client("rds").describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"][0]
    return f"arn:aws:rds-db:{aws.region}:{aws.account_id}:dbuser:{found['DbiResourceId']}"


def _granted(aws: Aws, role_arn: str) -> list[dict[str, Any]]:
    iam, role = aws.client("iam"), role_arn.rsplit("/", 1)[-1]
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    documents = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]
    return [
        statement
        for document in documents
        for statement in _list(document["Statement"])
        if statement["Effect"] == "Allow"
    ]


def _rolls_back(described: dict[str, Any]) -> bool:
    breaker = described["deploymentConfiguration"].get("deploymentCircuitBreaker", {})
    return bool(breaker.get("enable") and breaker.get("rollback"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
