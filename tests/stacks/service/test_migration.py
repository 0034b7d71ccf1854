"""The migration runs before the service, with permissions that nobody else has."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from stacks.service.migration import HANDLER
from tests.stacks.templates import Assembly, Properties, as_list


def logical_id(assembly: Assembly, type_name: str) -> str:
    (found,) = (
        each
        for each, resource in assembly.service.resources.items()
        if resource["Type"] == type_name and each.startswith("Migration")
    )
    return found


def rule(assembly: Assembly) -> Properties:
    return assembly.service.one("AWS::Events::Rule", id_starts="MigrationStopped")


def target(assembly: Assembly) -> str:
    """The message of the rule, as text."""
    return str(rule(assembly)["Targets"][0]["InputTransformer"]["InputTemplate"])


def started(assembly: Assembly) -> dict[str, Any]:
    (resource,) = (
        each for each in assembly.service.resources.values() if each["Type"] == "Custom::MlflowMigration"
    )
    return dict(resource)


def task(assembly: Assembly) -> Properties:
    return assembly.service.one("AWS::ECS::TaskDefinition", id_starts="MigrationTaskDefinition")


def test_the_service_waits_for_the_migration(either: Assembly) -> None:
    (service,) = (each for each in either.service.resources.values() if each["Type"] == "AWS::ECS::Service")
    waiting = logical_id(either, "AWS::CloudFormation::WaitCondition")
    assert waiting in service["DependsOn"]
    assert logical_id(either, "Custom::MlflowMigration") in as_list(
        either.service.resources[waiting]["DependsOn"]
    )


def test_it_knows_how_many_connections_every_task_in_all_may_open(dev: Assembly, prod: Assembly) -> None:
    def required(assembly: Assembly) -> object:
        (container,) = task(assembly)["ContainerDefinitions"]
        variables = {each["Name"]: each["Value"] for each in container["Environment"]}
        return variables["MLFLOW_AWS_DATABASE_REQUIRED_CONNECTIONS"]

    assert (required(dev), required(prod)) == ("95", "783")


def test_a_migration_may_take_hours(either: Assembly) -> None:
    waiting = either.service.one("AWS::CloudFormation::WaitCondition")
    assert waiting["Timeout"] == str(4 * 3600)
    assert waiting["Handle"] == {"Ref": logical_id(either, "AWS::CloudFormation::WaitConditionHandle")}


def test_the_end_of_this_task_and_of_no_earlier_one_is_told(either: Assembly) -> None:
    assert rule(either)["EventPattern"] == {
        "source": ["aws.ecs"],
        "detail-type": ["ECS Task State Change"],
        "detail": {
            "taskDefinitionArn": [started(either)["Properties"]["TaskDefinition"]],
            "lastStatus": ["STOPPED"],
        },
    }
    assert logical_id(either, "AWS::CloudFormation::WaitConditionHandle") in target(either)


def test_no_task_ends_unseen(either: Assembly) -> None:
    waits_for = set(started(either)["DependsOn"])
    assert logical_id(either, "AWS::Events::Rule") in waits_for
    assert logical_id(either, "AWS::Lambda::Permission") in waits_for


def waits(assembly: Assembly) -> list[str]:
    return [
        logical_id(assembly, f"AWS::CloudFormation::{each}")
        for each in ("WaitCondition", "WaitConditionHandle")
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"migration_hours": 5},
        {"image_uri": "registry.example.com/mlflow:2"},
        # The image that is built in the account is known by a digest that no template holds.
        {"base_image": "registry.example.com/python:3.13"},
    ],
)
def test_whatever_changes_the_task_is_waited_for_anew(
    change: dict[str, Any], dev: Assembly, build: Callable[..., Assembly]
) -> None:
    assert not set(waits(dev)) & set(waits(build("dev", {"server": change})))


def test_what_leaves_the_task_alone_is_not_waited_for(dev: Assembly, build: Callable[..., Assembly]) -> None:
    assert waits(dev) == waits(build("dev", {"server": {"requests_per_task": 600}}))


def test_the_migration_waits_for_its_permissions_and_its_way_to_the_database(either: Assembly) -> None:
    waits_for = set(started(either)["DependsOn"])
    needed = {
        logical_id
        for logical_id, resource in either.service.resources.items()
        if logical_id.startswith("MigrationTask")
        and resource["Type"]
        in {"AWS::IAM::Policy", "AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"}
    }
    assert len(needed) == 4
    assert needed <= waits_for


def test_the_migration_runs_again_when_its_task_changes(either: Assembly) -> None:
    definition = started(either)["Properties"]["TaskDefinition"]
    assert definition["Ref"].startswith("MigrationTaskDefinition")


def test_server_and_migration_run_the_same_image(either: Assembly) -> None:
    images = [
        each["ContainerDefinitions"][0]["Image"] for each in either.service.all("AWS::ECS::TaskDefinition")
    ]
    assert len(images) >= 2
    assert all(each == images[0] for each in images)


def test_the_migration_runs_the_migrate_command(either: Assembly) -> None:
    (container,) = task(either)["ContainerDefinitions"]
    environment = {each["Name"]: each["Value"] for each in container["Environment"]}
    assert container["Command"] == ["migrate"]
    assert environment["MLFLOW_AWS_DATABASE_MIGRATOR"] == "mlflow_migrator"
    assert "MasterUserSecret" in str(environment["MLFLOW_AWS_MASTER_SECRET_ARN"])
    assert f'"Container":"{container["Name"]}"' in target(either)
    prefix = container["LogConfiguration"]["Options"]["awslogs-stream-prefix"]
    assert f'"LogStreamPrefix":"{prefix}"' in target(either)


def test_nobody_but_the_migration_reads_the_administrators_secret(either: Assembly) -> None:
    readers = {who for who, action, _ in either.service.allowed() if action.startswith("secretsmanager:")}
    assert {each[: len("MigrationTaskRole")] for each in readers} == {"MigrationTaskRole"}
    others = [each for each in either.foundation.allowed() if each[1].startswith("secretsmanager:GetSecret")]
    assert not [each for each in others if "MasterUserSecret" in str(each)]


@pytest.mark.parametrize("user", ["mlflow_migrator", "mlflow_administrator"])
def test_only_the_migration_and_what_an_operator_starts_sign_in_as_more_than_the_server(
    either: Assembly, user: str
) -> None:
    owners = {
        who
        for who, action, resource in either.service.allowed()
        if action == "rds-db:connect" and user in str(resource)
    }
    operations = {"ImportTaskRole", "RelocateTaskRole"} if user == "mlflow_migrator" else set()
    assert {each.partition("DefaultPolicy")[0] for each in owners} == {"MigrationTaskRole"} | operations


def test_nobody_but_the_migration_takes_a_snapshot_and_only_of_this_database(either: Assembly) -> None:
    taken = [each for each in either.service.allowed() if each[1].startswith("rds:")]
    assert {action for _, action, _ in taken} == {"rds:CreateDBSnapshot", "rds:DescribeDBSnapshots"}
    assert {who.partition("DefaultPolicy")[0] for who, _, _ in taken} == {"MigrationTaskRole"}
    named = json.dumps([resource for _, _, resource in taken])
    assert re.search(r":snapshot:mlflow-(dev|prod)-before-\*", named)
    assert "DatabaseInstance" in named
    (container,) = task(either)["ContainerDefinitions"]
    told = {each["Name"]: each["Value"] for each in container["Environment"]}
    assert ":db:" in json.dumps(told["MLFLOW_AWS_DATABASE_ARN"])
    assert told["MLFLOW_AWS_DEPLOYMENT"] == f"MlflowOnAws-{told['MLFLOW_AWS_ENVIRONMENT']}-Service"


def test_the_runner_may_run_this_task_in_this_cluster_only(either: Assembly) -> None:
    statements = either.service.statements(id_starts="MigrationRunnerRole")
    (run,) = (each for each in statements if each["Action"] == "ecs:RunTask")
    assert run["Resource"]["Ref"].startswith("MigrationTaskDefinition")
    assert "ecs:cluster" in run["Condition"]["ArnEquals"]
    (passing,) = (each for each in statements if each["Action"] == "iam:PassRole")
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    assert all(each["Fn::GetAtt"][0].startswith("MigrationTask") for each in passing["Resource"])


def test_the_runner_has_no_other_permission(either: Assembly) -> None:
    actions = {
        action
        for statement in either.service.statements(id_starts="MigrationRunnerRole")
        for action in as_list(statement["Action"])
    }
    assert actions == {
        "ecs:RunTask",
        "ecs:StopTask",
        "iam:PassRole",
        "logs:GetLogEvents",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "cloudformation:DescribeStacks",
    }


def test_the_template_carries_the_tested_handler(either: Assembly) -> None:
    runner = either.service.one("AWS::Lambda::Function", id_starts="MigrationRunner")
    assert runner["Code"] == {"ZipFile": HANDLER.read_text()}
    assert runner["Handler"] == "index.handler"


def test_cloudformation_waits_for_the_start_as_long_as_the_runner(either: Assembly) -> None:
    runner = either.service.one("AWS::Lambda::Function", id_starts="MigrationRunner")
    assert started(either)["Properties"]["ServiceTimeout"] == str(runner["Timeout"])
