"""The container that alone writes to the audit log."""

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs

from stacks.service.server_image import ServerImage
from stacks.service.server_task import ServerTask, unprivileged_linux

# Its directory in the image: the server, of the same group, may write to the pipe there and change nothing.
DIRECTORY = "/run/mlflow-aws"
VARIABLE, PIPE = "MLFLOW_AWS_AUDIT_PIPE", f"{DIRECTORY}/audit"
_USER = "10002:10001"
_MEMORY_MIB = 64


def add_audit_container(task: ServerTask, *, image: ServerImage, log: logs.ILogGroup) -> None:
    """Give the task a second container, which prints what the server writes to a pipe, and nothing else.

    It starts before the server and ends after it. The server cannot reach `log` in any other way. Where the
    log is behind, the pipe fills, and the server knows (docs/decisions/audit-log.md).
    """
    audit = task.definition.add_container(
        "audit",
        image=image.container_image,
        command=["audit"],
        environment={VARIABLE: PIPE},
        user=_USER,
        readonly_root_filesystem=True,
        linux_parameters=unprivileged_linux(task, "AuditLinux"),
        memory_limit_mib=_MEMORY_MIB,
        # A part of the name: on a laptop, where processes have no mounts, the pipe is elsewhere.
        health_check=ecs.HealthCheck(
            command=["CMD-SHELL", f'test -p "${VARIABLE}"'],
            interval=cdk.Duration.seconds(30),
            timeout=cdk.Duration.seconds(5),
            retries=3,
        ),
        stop_timeout=cdk.Duration.seconds(30),
        # Blocking: a driver that drops lines would tell nobody.
        logging=ecs.LogDrivers.aws_logs(
            stream_prefix="audit", log_group=log, mode=ecs.AwsLogDriverMode.BLOCKING
        ),
    )
    task.definition.add_volume(name="audit")
    for container in (task.container, audit):
        container.add_mount_points(
            ecs.MountPoint(container_path=DIRECTORY, source_volume="audit", read_only=False)
        )
    task.container.add_environment(VARIABLE, PIPE)
    task.container.add_container_dependencies(
        ecs.ContainerDependency(container=audit, condition=ecs.ContainerDependencyCondition.START)
    )
