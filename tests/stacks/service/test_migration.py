"""The migration runs before the service, with permissions that nobody else has."""

from typing import Any

from stacks.service.migration import HANDLER
from tests.stacks.templates import Assembly, Properties, as_list


def completed(assembly: Assembly) -> dict[str, Any]:
    (resource,) = (
        each for each in assembly.service.resources.values() if each["Type"] == "Custom::MlflowMigration"
    )
    return dict(resource)


def task(assembly: Assembly) -> Properties:
    return assembly.service.one("AWS::ECS::TaskDefinition", id_starts="MigrationTaskDefinition")


def test_the_service_waits_for_the_migration(either: Assembly) -> None:
    (service,) = (each for each in either.service.resources.values() if each["Type"] == "AWS::ECS::Service")
    assert [each for each in service["DependsOn"] if each.startswith("MigrationCompleted")]


def test_the_migration_waits_for_its_permissions_and_its_way_to_the_database(either: Assembly) -> None:
    waits_for = set(completed(either)["DependsOn"])
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
    definition = completed(either)["Properties"]["TaskDefinition"]
    assert definition["Ref"].startswith("MigrationTaskDefinition")


def test_server_and_migration_run_the_same_image(either: Assembly) -> None:
    images = [
        each["ContainerDefinitions"][0]["Image"] for each in either.service.all("AWS::ECS::TaskDefinition")
    ]
    assert len(images) == 2
    assert images[0] == images[1]


def test_the_migration_runs_the_migrate_command(either: Assembly) -> None:
    (container,) = task(either)["ContainerDefinitions"]
    environment = {each["Name"]: each["Value"] for each in container["Environment"]}
    assert container["Command"] == ["migrate"]
    assert environment["MLFLOW_AWS_DATABASE_MIGRATOR"] == "mlflow_migrator"
    assert "MasterUserSecret" in str(environment["MLFLOW_AWS_MASTER_SECRET_ARN"])
    assert container["Name"] == completed(either)["Properties"]["Container"]
    assert (
        container["LogConfiguration"]["Options"]["awslogs-stream-prefix"]
        == (completed(either)["Properties"]["LogStreamPrefix"])
    )


def test_nobody_but_the_migration_reads_the_administrators_secret(either: Assembly) -> None:
    readers = {who for who, action, _ in either.service.allowed() if action.startswith("secretsmanager:")}
    assert {each[: len("MigrationTaskRole")] for each in readers} == {"MigrationTaskRole"}
    assert not [each for each in either.foundation.allowed() if each[1].startswith("secretsmanager:")]


def test_nobody_but_the_migration_signs_in_as_the_owner_of_the_schema(either: Assembly) -> None:
    owners = {
        who
        for who, action, resource in either.service.allowed()
        if action == "rds-db:connect" and "mlflow_migrator" in str(resource)
    }
    assert {each[: len("MigrationTaskRole")] for each in owners} == {"MigrationTaskRole"}


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
        "ecs:DescribeTasks",
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


def test_cloudformation_waits_as_long_as_the_runner(either: Assembly) -> None:
    runner = either.service.one("AWS::Lambda::Function", id_starts="MigrationRunner")
    assert completed(either)["Properties"]["ServiceTimeout"] == str(runner["Timeout"]) == "900"
