"""Checks of the server's ECS service, its task definition and its role."""

from __future__ import annotations

from typing import Any

from verify_account import database
from verify_account.check import CheckResult, Clients, Outputs, listed

_SECRET_NAMES = ("PASSWORD", "SECRET", "ACCESS_KEY")


def service(clients: Clients, outputs: Outputs) -> list[CheckResult]:
    """The server's tasks hold no secret and may do only what they need."""
    ecs = clients("ecs")
    described = ecs.describe_services(cluster=outputs["ClusterName"], services=[outputs["ServiceName"]])[
        "services"
    ][0]
    definition = ecs.describe_task_definition(taskDefinition=described["taskDefinition"])["taskDefinition"]
    container = definition["containerDefinitions"][0]
    environment = {each["name"] for each in container["environment"]}
    granted = _granted(clients, definition["taskRoleArn"])
    connects = [each for each in granted if "rds-db:connect" in listed(each["Action"])]
    wildcards = [each for each in granted if "*" in listed(each["Resource"])]
    user = f"{_database_users(clients, outputs)}/mlflow_server"
    return [
        CheckResult(
            "the task has a role of its own beside its execution role",
            bool(definition["taskRoleArn"]) and definition["taskRoleArn"] != definition["executionRoleArn"],
            definition,
        ),
        CheckResult(
            "the server's root file system is read-only",
            bool(container.get("readonlyRootFilesystem")),
            container,
        ),
        CheckResult(
            "the server does not run as root",
            container.get("user") not in (None, "", "0", "root"),
            container.get("user"),
        ),
        CheckResult(
            "the container has a health check", bool(container["healthCheck"].get("command")), container
        ),
        CheckResult(
            "the task definition holds no key and no password",
            not container.get("secrets")
            and not any(word in name for name in environment for word in _SECRET_NAMES),
            sorted(environment),
        ),
        CheckResult(
            "the server's role signs in as one database user",
            [listed(each["Resource"]) for each in connects] == [[user]],
            connects,
        ),
        CheckResult("the server's role has no wildcard resource", not wildcards, wildcards),
        CheckResult(
            "a failing release is rolled back", _rolls_back(described), described["deploymentConfiguration"]
        ),
    ]


def _database_users(clients: Clients, outputs: Outputs) -> str:
    instance = database.describe(clients, outputs)
    arn, partition, _service, region, account = instance["DBInstanceArn"].split(":")[:5]
    return f"{arn}:{partition}:rds-db:{region}:{account}:dbuser:{instance['DbiResourceId']}"


def _granted(clients: Clients, role_arn: str) -> list[dict[str, Any]]:
    iam, role = clients("iam"), role_arn.rsplit("/", 1)[-1]
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    documents = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]
    return [
        statement
        for document in documents
        for statement in listed(document["Statement"])
        if statement["Effect"] == "Allow"
    ]


def _rolls_back(described: dict[str, Any]) -> bool:
    breaker = described["deploymentConfiguration"].get("deploymentCircuitBreaker", {})
    return bool(breaker.get("enable") and breaker.get("rollback"))
