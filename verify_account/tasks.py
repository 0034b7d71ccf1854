"""Checks of the server's ECS service, its task definition and its role."""

from __future__ import annotations

from typing import Any

from verify_account.account import Account, Check, listed
from verify_account.database import database
from verify_account.policies import Statement, role_statements

_SECRET_NAMES = ("PASSWORD", "SECRET", "ACCESS_KEY")
_SHELL = "aws ecs update-service --no-enable-execute-command --force-new-deployment"
_DEPLOY = "deploy again, with a change: ECS then starts tasks of the stack's definition"


def service(account: Account) -> dict[str, Any]:
    """The ECS service that the outputs name."""
    cluster, name = account.outputs["ClusterName"], account.outputs["ServiceName"]
    return dict(account.ask("ecs", "describe_services", cluster=cluster, services=[name])["services"][0])


def _definition(account: Account) -> dict[str, Any]:
    arn = service(account)["taskDefinition"]
    return dict(account.ask("ecs", "describe_task_definition", taskDefinition=arn)["taskDefinition"])


def _container(account: Account) -> dict[str, Any]:
    return dict(_definition(account)["containerDefinitions"][0])


def running(account: Account) -> list[dict[str, Any]]:
    """The tasks of the cluster, a hundred at most."""
    cluster = account.outputs["ClusterName"]
    arns = account.ask("ecs", "list_tasks", cluster=cluster)["taskArns"]
    if not arns:
        return []
    return list(account.ask("ecs", "describe_tasks", cluster=cluster, tasks=arns[:100])["tasks"])


def _granted(account: Account) -> list[Statement]:
    role = _definition(account)["taskRoleArn"].rsplit("/", 1)[-1]
    return [each for each in role_statements(account, role) if each["Effect"] == "Allow"]


def _deployed(account: Account) -> tuple[bool, object]:
    """A definition never changes, so that it holds the roles, issuers and image that were deployed."""
    ours = {each.physical_id for each in account.of_type("AWS::ECS::TaskDefinition")}
    live = {service(account)["taskDefinition"], *(each["taskDefinitionArn"] for each in running(account))}
    return live <= ours, sorted(live)


def _own_role(account: Account) -> tuple[bool, object]:
    found = _definition(account)
    roles = [found.get("taskRoleArn"), found.get("executionRoleArn")]
    return all(roles) and roles[0] != roles[1], roles


def _read_only(account: Account) -> tuple[bool, object]:
    containers = _definition(account)["containerDefinitions"]
    return all(each.get("readonlyRootFilesystem") for each in containers), [
        each["name"] for each in containers
    ]


def _unprivileged(account: Account) -> tuple[bool, object]:
    told = [
        {
            "user": each.get("user"),
            "privileged": bool(each.get("privileged")),
            "capabilities": each.get("linuxParameters", {}).get("capabilities"),
        }
        for each in _definition(account)["containerDefinitions"]
    ]
    return all(
        str(each["user"] or "root").partition(":")[0] not in ("", "0", "root")
        and not each["privileged"]
        and (each["capabilities"] or {}).get("drop") == ["ALL"]
        and not (each["capabilities"] or {}).get("add")
        for each in told
    ), told


def _health(account: Account) -> tuple[bool, object]:
    check = _container(account).get("healthCheck", {})
    return bool(check.get("command")), check


def _no_secret(account: Account) -> tuple[bool, object]:
    containers = _definition(account)["containerDefinitions"]
    names = sorted(each["name"] for container in containers for each in container.get("environment", []))
    return not any(container.get("secrets") for container in containers) and not any(
        word in name for name in names for word in _SECRET_NAMES
    ), names


def _one_user(account: Account) -> tuple[bool, object]:
    found = database(account)
    arn = found.get("DBInstanceArn") or found["DBClusterArn"]
    name, partition, _service, region, number = arn.split(":")[:5]
    resource = found.get("DbiResourceId") or found["DbClusterResourceId"]
    user = f"{name}:{partition}:rds-db:{region}:{number}:dbuser:{resource}/mlflow_server"
    live = [
        listed(each["Resource"]) for each in _granted(account) if "rds-db:connect" in listed(each["Action"])
    ]
    return live == [[user]], live


def _no_wildcard(account: Account) -> tuple[bool, object]:
    wide = [
        each
        for each in _granted(account)
        if "NotAction" in each
        or "NotResource" in each
        or "*" in listed(each["Resource"])
        or any("*" in action for action in listed(each["Action"]))
    ]
    return not wide, wide or "every action and resource is named"


def _no_shell(account: Account) -> tuple[bool, object]:
    on = [each["taskArn"] for each in running(account) if each.get("enableExecuteCommand")]
    if service(account).get("enableExecuteCommand"):
        on.append("the service")
    return not on, on or "ECS Exec is off"


def _no_public_address(account: Account) -> tuple[bool, object]:
    value = service(account)["networkConfiguration"]["awsvpcConfiguration"].get("assignPublicIp", "DISABLED")
    return value == "DISABLED", f"assignPublicIp is {value}"


def _rolls_back(account: Account) -> tuple[bool, object]:
    breaker = service(account)["deploymentConfiguration"].get("deploymentCircuitBreaker", {})
    return bool(breaker.get("enable") and breaker.get("rollback")), breaker


CHECKS = (
    Check("tasks run the stack's definition, with its image, issuers and roles", _deployed, _DEPLOY),
    Check("the task has a role of its own beside its execution role", _own_role, _DEPLOY),
    Check("the server's root file system is read-only", _read_only, _DEPLOY),
    Check("the server does not run as root, and has no capability", _unprivileged, _DEPLOY),
    Check("the container has a health check", _health, _DEPLOY),
    Check("the task definition holds no key and no password", _no_secret, _DEPLOY),
    Check(
        "the server's role signs in as one database user",
        _one_user,
        "restore the role's policy: one rds-db:connect, for mlflow_server",
    ),
    Check(
        "the server's role has no wildcard action, and no wildcard resource",
        _no_wildcard,
        "remove the statement from the role",
    ),
    Check("nobody opens a shell in a task", _no_shell, _SHELL),
    Check(
        "tasks have no public address", _no_public_address, "aws ecs update-service, assignPublicIp=DISABLED"
    ),
    Check("a failing release is rolled back", _rolls_back, "restore the service's circuit breaker"),
)
