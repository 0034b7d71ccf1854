"""The server's task runs without privileges, and its role may do few things."""

import json
from collections.abc import Callable
from typing import Any

from mlflow_aws_server.settings import ServerSettings

from stacks.config import ServerConfig
from tests.stacks.conftest import IMAGE, ROOT, read_config
from tests.stacks.templates import Assembly, Properties, as_list

TASK = "ServerTaskDefinition"


def container(assembly: Assembly) -> Properties:
    properties: Properties = containers(assembly)["server"]
    return properties


def containers(assembly: Assembly) -> dict[str, Any]:
    task = assembly.service.one("AWS::ECS::TaskDefinition", id_starts=TASK)
    return {each["Name"]: each for each in task["ContainerDefinitions"]}


def environment(assembly: Assembly) -> dict[str, Any]:
    return {each["Name"]: each["Value"] for each in container(assembly)["Environment"]}


def service(assembly: Assembly) -> Properties:
    return assembly.service.one("AWS::ECS::Service")


def test_container_is_unprivileged(either: Assembly) -> None:
    only = container(either)
    assert only["User"] == "10001:10001"
    assert only["ReadonlyRootFilesystem"] is True
    assert only["LinuxParameters"] == {"Capabilities": {"Drop": ["ALL"]}, "InitProcessEnabled": True}
    assert "Privileged" not in only


def test_the_image_declares_the_directory_that_its_task_mounts() -> None:
    # Without it, Fargate's volume belongs to root, and the unprivileged server cannot write to it.
    assert 'VOLUME ["/tmp", "/run/mlflow-aws"]' in (ROOT / "server" / "Dockerfile").read_text().splitlines()


def test_only_tmp_is_writable(either: Assembly) -> None:
    # What the server may do in the second one, the image says: write to a pipe.
    mounts = {each["SourceVolume"]: each["ContainerPath"] for each in container(either)["MountPoints"]}
    assert mounts == {"tmp": "/tmp", "audit": "/run/mlflow-aws"}
    volumes = either.service.one("AWS::ECS::TaskDefinition", id_starts=TASK)["Volumes"]
    assert volumes == [{"Name": name} for name in mounts]


def test_container_serves_and_is_checked_by_its_own_command(either: Assembly) -> None:
    assert container(either)["Command"] == ["serve"]
    assert "EntryPoint" not in container(either)
    assert container(either)["HealthCheck"]["Command"] == [
        "CMD", "python", "-m", "mlflow_aws_server", "healthcheck",
    ]  # fmt: skip


def test_a_database_failover_does_not_replace_tasks(either: Assembly) -> None:
    failover_seconds = 120
    check = container(either)["HealthCheck"]
    targets = either.service.one("AWS::ElasticLoadBalancingV2::TargetGroup")
    assert check["Interval"] * check["Retries"] > failover_seconds
    assert targets["HealthCheckIntervalSeconds"] * targets["UnhealthyThresholdCount"] > failover_seconds


def test_the_environment_is_complete(dev: Assembly) -> None:
    assert {name: value for name, value in environment(dev).items() if isinstance(value, str)} == {
        "MLFLOW_AWS_DATABASE_NAME": "mlflow",
        "MLFLOW_AWS_DATABASE_USER": "mlflow_server",
        "MLFLOW_AWS_AUDIT_PIPE": "/run/mlflow-aws/audit",
        "MLFLOW_AWS_PUBLIC_URL": "https://mlflow.dev.example.com",
        "MLFLOW_AWS_PORT": "5000",
        "MLFLOW_AWS_DEPLOYMENT": "MlflowOnAws-dev-Service",
        "MLFLOW_AWS_KEEP_ALIVE_SECONDS": "75",
        "MLFLOW_AWS_TOKEN_AUDIENCE": "https://mlflow.dev.example.com",
        "MLFLOW_AWS_SEAL_AT": "registration",
        **ServerConfig.model_validate(read_config("dev")["server"]).variables,
    }
    assert {name for name, value in environment(dev).items() if not isinstance(value, str)} == {
        "AWS_REGION",
        # The canary's role has no name before it is made.
        "MLFLOW_AWS_ROLES",
        "MLFLOW_AWS_DATABASE_HOST",
        "MLFLOW_AWS_DATABASE_PORT",
        "MLFLOW_AWS_ARTIFACT_ROOT",
        "MLFLOW_AWS_TOKEN_ISSUERS",
        "MLFLOW_AWS_USER_POOL_ISSUER",
        "MLFLOW_AWS_USER_POOL_CLIENT_ID",
        "MLFLOW_AWS_WEBHOOK_KEY_ARN",
        "MLFLOW_AWS_EVENT_BUS_ARN",
    }


def test_the_server_reads_its_settings_as_the_file_has_them(build: Callable[..., Assembly]) -> None:
    artifacts = {"seal_at": "promotion", "object_lock": {"mode": "compliance", "years": 100}}
    changes = {"server": {"image_uri": IMAGE, "fast_path": False}, "artifacts": artifacts}
    deployed = environment(build("prod", changes))
    known_at_deployment = {
        "AWS_REGION": "eu-central-1",
        "MLFLOW_AWS_DATABASE_HOST": "database.example.com",
        "MLFLOW_AWS_DATABASE_PORT": "5433",
        "MLFLOW_AWS_DATABASE_CA_FILE": __file__,
        "MLFLOW_AWS_ARTIFACT_ROOT": "s3://artifacts/",
        "MLFLOW_AWS_EVENT_BUS_ARN": "arn:aws:events:eu-central-1:111122223333:event-bus/Bus",
        "MLFLOW_AWS_WEBHOOK_KEY_ARN": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:Key-a1B2c3",
    }
    settings = ServerSettings.from_environ(deployed | known_at_deployment)
    assert (settings.workers, settings.max_connections, settings.fast_path) == (2, 96, False)
    sealing = settings.sealing
    assert not sealing.at_registration
    assert sealing.lock is not None
    assert (sealing.lock.mode, sealing.lock.years) == ("compliance", 100)


def test_the_prefix_of_the_file_is_part_of_the_artifact_root(replicated: Assembly, dev: Assembly) -> None:
    assert environment(replicated)["MLFLOW_AWS_ARTIFACT_ROOT"]["Fn::Join"][1][-1] == "/team/models/"
    assert environment(dev)["MLFLOW_AWS_ARTIFACT_ROOT"]["Fn::Join"][1][-1] == "/"


def test_no_task_holds_a_secret(either: Assembly) -> None:
    for task in either.service.all("AWS::ECS::TaskDefinition"):
        for each in task["ContainerDefinitions"]:
            assert "Secrets" not in each
            assert not [variable for variable in each["Environment"] if "PASSWORD" in variable["Name"]]


ROLE = "ServerRole"


def granted(assembly: Assembly) -> dict[str, Properties]:
    """The statement of the server's role for each action."""
    return {
        action: each
        for each in assembly.foundation.statements(id_starts=ROLE)
        for action in as_list(each["Action"])
    }


def test_the_task_has_the_foundation_s_role_and_the_service_grants_it_nothing(either: Assembly) -> None:
    task = either.service.one("AWS::ECS::TaskDefinition", id_starts=TASK)
    assert f"GetAtt{ROLE}" in task["TaskRoleArn"]["Fn::ImportValue"]
    assert {each for each in either.service.resources if each.startswith("ServerTaskRole")} == set()
    assert either.foundation.one("AWS::IAM::Role", id_starts=ROLE).keys() == {"AssumeRolePolicyDocument"}


def test_the_role_signs_in_as_one_user_reads_artifacts_and_seals(either: Assembly) -> None:
    assert set(granted(either)) == {
        "rds-db:connect",
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads",
        "s3:GetObject",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "secretsmanager:GetSecretValue",
    }


def test_the_role_signs_in_as_no_other_user(either: Assembly) -> None:
    statement = granted(either)["rds-db:connect"]
    assert statement["Resource"]["Fn::Join"][1][-1] == "/mlflow_server"
    assert "*" not in str(statement["Resource"])


def test_the_role_reads_below_the_prefix_and_writes_what_is_sealed_only(replicated: Assembly) -> None:
    statements = granted(replicated)
    assert statements["s3:GetObject"]["Resource"]["Fn::Join"][1][-1] == "/team/models/*"
    assert statements["s3:ListBucket"]["Condition"] == {"StringLikeIfExists": {"s3:prefix": "team/models/*"}}
    assert statements["s3:PutObject"]["Resource"]["Fn::Join"][1][-1] == "/team/models/sealed/*"


def test_the_role_locks_what_it_seals_where_the_file_says_so(replicated: Assembly, either: Assembly) -> None:
    assert granted(replicated)["s3:PutObjectRetention"] == granted(replicated)["s3:PutObject"]
    assert "s3:PutObjectRetention" not in granted(either)
    assert environment(replicated)["MLFLOW_AWS_SEAL_LOCK"] == "governance:7"
    assert "MLFLOW_AWS_SEAL_LOCK" not in environment(either)


def test_task_roles_are_assumed_by_tasks_of_this_account_only(either: Assembly) -> None:
    roles = [*either.service.all("AWS::IAM::Role", id_starts="ServerTask")]
    roles += either.service.all("AWS::IAM::Role", id_starts="MigrationTask")
    roles += either.foundation.all("AWS::IAM::Role", id_starts=ROLE)
    assert len(roles) == 4
    for role in roles:
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
        assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}


def test_execution_roles_may_pull_and_log_and_nothing_else(either: Assembly) -> None:
    for name in ("ServerTaskExecutionRole", "MigrationTaskExecutionRole"):
        for statement in either.service.statements(id_starts=name):
            for action in as_list(statement["Action"]):
                assert action.split(":")[0] in {"ecr", "logs"}
            if statement["Resource"] == "*":
                assert statement["Action"] == "ecr:GetAuthorizationToken"


def test_no_role_has_an_action_with_a_wildcard(either: Assembly) -> None:
    for template in (either.foundation, either.service):
        assert [each for each in template.allowed() if "*" in each[1]] == []


def test_tasks_leave_to_aws_and_the_database_only(either: Assembly) -> None:
    for name in ("ServerTask", "MigrationTask"):
        group = either.service.one("AWS::EC2::SecurityGroup", id_starts=f"{name}SecurityGroup")
        assert [(rule["FromPort"], rule["ToPort"]) for rule in group["SecurityGroupEgress"]] == [(443, 443)]
        (rule,) = either.service.all("AWS::EC2::SecurityGroupEgress", id_starts=f"{name}SecurityGroup")
        assert (rule["FromPort"], rule["ToPort"]) == (5433, 5433)
        assert "Database" in str(rule["DestinationSecurityGroupId"])


def test_only_the_load_balancer_enters_the_server(either: Assembly) -> None:
    (rule,) = (
        rule
        for rule in either.service.all("AWS::EC2::SecurityGroupIngress")
        if "ServerTask" in str(rule["GroupId"])
    )
    assert (rule["FromPort"], rule["ToPort"]) == (5000, 5000)
    assert rule["SourceSecurityGroupId"]["Fn::GetAtt"][0].startswith("IngressSecurityGroup")


def test_nothing_enters_the_migration(either: Assembly) -> None:
    group = either.service.one("AWS::EC2::SecurityGroup", id_starts="MigrationTaskSecurityGroup")
    assert "SecurityGroupIngress" not in group
    rules = either.service.all("AWS::EC2::SecurityGroupIngress")
    assert not [rule for rule in rules if "Migration" in str(rule["GroupId"])]


def test_tasks_run_in_private_subnets_without_public_addresses(either: Assembly) -> None:
    network = service(either)["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network["AssignPublicIp"] == "DISABLED"
    assert all("PrivateSubnet" in str(subnet) for subnet in network["Subnets"])


def test_a_bad_release_is_rolled_back(either: Assembly) -> None:
    deployment = service(either)["DeploymentConfiguration"]
    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]) == (100, 200)


def test_the_service_goes_before_the_capacity_providers_that_it_uses(either: Assembly) -> None:
    resources = either.service.resources.values()
    (running,) = (each for each in resources if each["Type"] == "AWS::ECS::Service")
    (association,) = (
        logical_id
        for logical_id, each in either.service.resources.items()
        if each["Type"] == "AWS::ECS::ClusterCapacityProviderAssociations"
    )
    assert association in running["DependsOn"]


def test_nobody_gets_a_shell_in_a_task(either: Assembly) -> None:
    assert "EnableExecuteCommand" not in service(either)


def test_autoscaling_keeps_what_it_decided_over_a_deployment(either: Assembly) -> None:
    assert "DesiredCount" not in service(either)


def test_the_service_scales_on_cpu_and_on_requests(dev: Assembly, prod: Assembly) -> None:
    def range_of(assembly: Assembly) -> tuple[int, int]:
        target = assembly.service.one("AWS::ApplicationAutoScaling::ScalableTarget")
        return target["MinCapacity"], target["MaxCapacity"]

    assert (range_of(dev), range_of(prod)) == ((1, 2), (2, 4))
    metrics = {
        policy["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"][
            "PredefinedMetricType"
        ]
        for policy in prod.service.all("AWS::ApplicationAutoScaling::ScalingPolicy")
    }
    assert metrics == {"ECSServiceAverageCPUUtilization", "ALBRequestCountPerTarget"}


def test_processor_and_size_are_those_of_the_file(dev: Assembly, prod: Assembly) -> None:
    def size(assembly: Assembly) -> tuple[str, str, str]:
        task = assembly.service.one("AWS::ECS::TaskDefinition", id_starts=TASK)
        return task["Cpu"], task["Memory"], task["RuntimePlatform"]["CpuArchitecture"]

    assert size(dev) == ("512", "1024", "ARM64")
    assert size(prod) == ("1024", "2048", "ARM64")


def test_spot_is_for_whom_the_file_allows_it(dev: Assembly, prod: Assembly) -> None:
    def provider(assembly: Assembly) -> Any:
        (only,) = service(assembly)["CapacityProviderStrategy"]
        return only["CapacityProvider"]

    assert (provider(dev), provider(prod)) == ("FARGATE_SPOT", "FARGATE")


def test_only_the_audit_container_writes_to_the_audit_log(either: Assembly) -> None:
    found = containers(either)
    assert list(found) == ["server", "audit"]
    groups = {name: json.dumps(each["LogConfiguration"]["Options"]) for name, each in found.items()}
    assert "AuditLog" in groups["audit"]
    assert "AuditLog" not in groups["server"]
    # Lines that the log does not take are noticed, not dropped.
    assert found["audit"]["LogConfiguration"]["Options"]["mode"] == "blocking"
    writers = {
        logical_id
        for logical_id, action, resource in either.service.allowed()
        if action == "logs:PutLogEvents" and "AuditLog" in str(resource)
    }
    assert [each for each in writers if not each.startswith("ServerTaskExecutionRole")] == []
    assert writers
    assert not [
        each
        for _, each, resource in either.foundation.allowed()
        if "PutLog" in each and "Audit" in str(resource)
    ]


def test_the_audit_container_has_no_privilege_and_reads_what_the_server_may_only_write(
    either: Assembly,
) -> None:
    server, audit = containers(either).values()
    for each in (server, audit):
        assert each["Essential"]
        assert each["ReadonlyRootFilesystem"]
        assert each["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
    # Another user than the server's, of its group.
    assert [each["User"] for each in (server, audit)] == ["10001:10001", "10002:10001"]
    assert server["DependsOn"] == [{"Condition": "START", "ContainerName": "audit"}]
    path = {each["Name"]: each["Value"] for each in audit["Environment"]}
    assert path == {"MLFLOW_AWS_AUDIT_PIPE": "/run/mlflow-aws/audit"}
    assert environment(either)["MLFLOW_AWS_AUDIT_PIPE"] == path["MLFLOW_AWS_AUDIT_PIPE"]
    for each in (server, audit):
        assert "/run/mlflow-aws" in {mount["ContainerPath"] for mount in each["MountPoints"]}


def test_the_audit_log_outlives_the_stacks(either: Assembly) -> None:
    (log,) = (each for name, each in either.foundation.resources.items() if name.startswith("AuditLog"))
    assert (log["DeletionPolicy"], log["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    assert log["Properties"]["RetentionInDays"] == 365
