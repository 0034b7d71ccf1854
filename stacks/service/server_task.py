"""The task definitions of the server's image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.acknowledge import acknowledge, acknowledge_resource
from stacks.config import ServerConfig
from stacks.foundation.artifact_store import ArtifactStore
from stacks.foundation.database import Database
from stacks.foundation.server_role import tasks_of_this_account
from stacks.service.cluster import Cluster
from stacks.service.server_image import ServerImage

CPUS = {"arm64": ecs.CpuArchitecture.ARM64, "x86_64": ecs.CpuArchitecture.X86_64}
UNPRIVILEGED = "10001:10001"
# ECS kills the container after this; the server finishes its requests and exits sooner.
STOP_TIMEOUT = cdk.Duration.seconds(60)


@dataclass(frozen=True, kw_only=True)
class TaskResources:
    """What every task runs on and works with."""

    cluster: Cluster
    image: ServerImage
    database: Database
    artifacts: ArtifactStore


class ImageTask(Construct):
    """The server's image without privileges: no root, no writable disk but /tmp, no secret in it.

    It reaches AWS on port 443, and nothing else. Its role, given or its own, may do only what is granted
    to it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        resources: TaskResources,
        name: str,
        command: str,
        log_stream_prefix: str,
        environment: Mapping[str, str],
        config: ServerConfig,
        size: tuple[int, int],
        entry_point: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        role: iam.Role | None = None,
        health_check: ecs.HealthCheck | None = None,
    ) -> None:
        """`name` is the container's, `size` is CPU units and MiB; `entry_point` stands in for the image's."""
        super().__init__(scope, construct_id)
        self.container_name, self.log_stream_prefix = name, log_stream_prefix
        self.role = role or iam.Role(self, "Role", assumed_by=tasks_of_this_account(self))
        self.execution_role = iam.Role(self, "ExecutionRole", assumed_by=tasks_of_this_account(self))
        self.security_group = _security_group(self, vpc=resources.cluster.vpc)
        self.definition = ecs.FargateTaskDefinition(
            self,
            "Definition",
            cpu=size[0],
            memory_limit_mib=size[1],
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=CPUS[config.architecture],
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
            task_role=self.role,
            execution_role=self.execution_role,
            volumes=[ecs.Volume(name="tmp")],
        )
        self.container = self.definition.add_container(
            self.container_name,
            image=resources.image.container_image,
            entry_point=entry_point,
            command=[command],
            environment={"AWS_REGION": cdk.Stack.of(self).region, **environment},
            docker_labels=labels,
            user=UNPRIVILEGED,
            readonly_root_filesystem=True,
            linux_parameters=unprivileged_linux(self, "Linux"),
            health_check=health_check,
            stop_timeout=STOP_TIMEOUT,
            logging=ecs.LogDrivers.aws_logs(
                stream_prefix=self.log_stream_prefix,
                log_group=resources.cluster.log,
                mode=ecs.AwsLogDriverMode.NON_BLOCKING,
            ),
        )
        resources.image.grant_pull(self.execution_role)
        self.container.add_mount_points(
            ecs.MountPoint(container_path="/tmp", source_volume="tmp", read_only=False)  # noqa: S108
        )
        acknowledge(
            self.definition,
            "AwsSolutions-ECS2",
            because="the environment holds addresses and sizes; there is no secret to keep out of it",
        )
        acknowledge_resource(
            self.execution_role,
            "*",
            because="ecr:GetAuthorizationToken has no resource; what may be pulled is named in full",
        )


class ServerTask(ImageTask):
    """A command of the server's image, which reaches the database, too."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        resources: TaskResources,
        command: str,
        environment: Mapping[str, str],
        config: ServerConfig,
        role: iam.Role | None = None,
        health_check: ecs.HealthCheck | None = None,
    ) -> None:
        database = resources.database
        super().__init__(
            scope,
            construct_id,
            resources=resources,
            name="server",
            command=command,
            log_stream_prefix=command,
            environment={
                "MLFLOW_AWS_DATABASE_HOST": database.endpoint.hostname,
                "MLFLOW_AWS_DATABASE_PORT": cdk.Tokenization.stringify_number(database.endpoint.port),
                "MLFLOW_AWS_DATABASE_NAME": database.name,
                "MLFLOW_AWS_DATABASE_USER": database.server_user,
                "MLFLOW_AWS_ARTIFACT_ROOT": resources.artifacts.root,
                **environment,
            },
            config=config,
            size=(config.cpu, config.memory_mib),
            # References to outputs read the same for another database: only this makes the CDK deploy the
            # service, and run the migration, when the foundation has one.
            labels={"restored-from": database.restored_from} if database.restored_from else None,
            role=role,
            health_check=health_check,
        )
        database.allow_connections_from(self.security_group)


def unprivileged_linux(scope: Construct, construct_id: str) -> ecs.LinuxParameters:
    """No capability; an init process, which reaps orphans and passes SIGTERM on."""
    linux = ecs.LinuxParameters(scope, construct_id, init_process_enabled=True)
    linux.drop_capabilities(ecs.Capability.ALL)
    return linux


def _security_group(scope: Construct, *, vpc: ec2.IVpc) -> ec2.SecurityGroup:
    group = ec2.SecurityGroup(
        scope,
        "SecurityGroup",
        vpc=vpc,
        # Its text never changes: another one would replace the group.
        description="MLflow task: leaves to AWS and the database only",
        allow_all_outbound=False,
    )
    group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS, whose addresses vary")
    return group
