"""The migration's part of the service's template, deployed with tasks of our own in place of `migrate`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.local.conftest import Account

pytestmark = pytest.mark.slow

STACK = "migration-step"
PARTS = ("MigrationRunner", "MigrationStarted", "MigrationStopped", "MigrationSignal", "MigrationCompleted")
TASK_PARTS = ("AWS::ECS::TaskDefinition", "AWS::IAM::Role")
CLUSTER_PARTS = ("AWS::ECS::Cluster", "AWS::Logs::LogGroup")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The resources of the service's template."""
    from stacks.config import EnvironmentConfig
    from tests.stacks.conftest import read_config, synthesize

    config = EnvironmentConfig.model_validate(read_config("dev"))
    assembly = synthesize(config, name="dev", directory=tmp_path_factory.mktemp("assembly"))
    return assembly.service.resources


def template(service: Mapping[str, Any], *, version: int, code: str, hours: float = 1) -> str:
    """The migration as deployed, with a task that runs `code`; what it needs from elsewhere is made up."""
    resources: dict[str, Any] = {
        name: json.loads(json.dumps(each))
        for name, each in service.items()
        if name.startswith(PARTS)
        or (name.startswith("MigrationTask") and each["Type"] in TASK_PARTS)
        or (name.startswith("Cluster") and each["Type"] in CLUSTER_PARTS)
    }
    for name, resource in resources.items():
        properties = resource.get("Properties", {})
        resource["DependsOn"] = [each for each in resource.get("DependsOn", []) if each in resources]
        properties.pop("KmsKeyId", None)
        properties.pop("CapacityProviders", None)
        if name.startswith("MigrationTaskDefinition"):
            (container,) = properties["ContainerDefinitions"]
            container.update(Image="tested/image:latest", Command=[code], Environment=[])
        if name.startswith("MigrationCompleted"):
            properties["Timeout"] = str(int(hours * 3600))
    text = json.dumps({"Resources": made_up(resources, known=set(resources))})
    for name in resources:
        if name.startswith(("MigrationSignal", "MigrationCompleted")):
            text = text.replace(name, f"{name}{version}")
    return text


def made_up(value: Any, *, known: set[str]) -> Any:
    if isinstance(value, list):
        return [made_up(each, known=known) for each in value]
    if not isinstance(value, dict):
        return value
    if "Fn::ImportValue" in value or ("Fn::GetAtt" in value and value["Fn::GetAtt"][0] not in known):
        return "made-up"
    return {key: made_up(each, known=known) for key, each in value.items()}


def settled(account: Account) -> str:
    cloudformation = account.aws.client("cloudformation")
    deadline = time.monotonic() + 120
    while True:
        status = str(cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"])
        if not status.endswith("IN_PROGRESS"):
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.2)


def update(account: Account, body: str) -> tuple[str, str]:
    """Update the stack; return its status then, and why resources failed."""
    cloudformation = account.aws.client("cloudformation")
    before = {
        each["EventId"] for each in cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]
    }
    cloudformation.update_stack(StackName=STACK, TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
    status = settled(account)
    reasons = [
        each.get("ResourceStatusReason", "")
        for each in cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]
        if each["EventId"] not in before and each["ResourceStatus"].endswith("FAILED")
    ]
    return status, "\n".join(reasons)


def tasks(account: Account, status: str) -> list[str]:
    ecs = account.aws.client("ecs")
    (cluster,) = (each for each in ecs.list_clusters()["clusterArns"] if STACK in each)
    return list(ecs.list_tasks(cluster=cluster, desiredStatus=status)["taskArns"])


@pytest.fixture(scope="module")
def deployed(account: Account, service: Mapping[str, Any]) -> str:
    account.aws.client("cloudformation").create_stack(
        StackName=STACK,
        TemplateBody=template(service, version=0, code="print('migrated')"),
        Capabilities=["CAPABILITY_IAM"],
        OnFailure="DO_NOTHING",
    )
    return settled(account)


def test_a_deployment_completes_when_the_task_has_succeeded(account: Account, deployed: str) -> None:
    assert deployed == "CREATE_COMPLETE"
    assert len(tasks(account, "STOPPED")) == 1


def test_a_failed_task_fails_the_deployment_and_is_quoted(
    account: Account, service: Mapping[str, Any], deployed: str
) -> None:
    status, why = update(account, template(service, version=1, code="raise SystemExit('no such relation')"))
    assert status == "UPDATE_ROLLBACK_COMPLETE"
    assert "exit code 1\nno such relation\n" in why


def test_a_task_that_takes_too_long_is_stopped_when_the_deployment_rolls_back(
    account: Account, service: Mapping[str, Any], deployed: str
) -> None:
    status, why = update(
        account, template(service, version=2, code="import time; time.sleep(600)", hours=5 / 3600)
    )
    assert status == "UPDATE_ROLLBACK_COMPLETE"
    assert "timed out" in why
    assert tasks(account, "RUNNING") == []


def test_the_same_deployment_can_be_repeated_after_failures(
    account: Account, service: Mapping[str, Any], deployed: str
) -> None:
    ended = len(tasks(account, "STOPPED"))
    status, why = update(account, template(service, version=1, code="print('migrated at last')"))
    assert (status, why) == ("UPDATE_COMPLETE", "")
    assert len(tasks(account, "STOPPED")) == ended + 1
