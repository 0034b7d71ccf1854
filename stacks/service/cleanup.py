"""What was deleted goes for good."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.config import CleanupConfig, ServerConfig
from stacks.service.operation import Operation
from stacks.service.server_task import TaskResources

# After the night's backup, before people come.
_DAILY = events.Schedule.cron(hour="4", minute="23")


class Cleanup(Construct):
    """A task that an operator starts, and that starts itself every day if `deleted_days` is set.

    Its role deletes objects, and no version of one, below the artifact root, and nothing that is sealed. The
    task `erase` deletes no object: it plans, and deletes rows at the request of the break-glass role.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        resources: TaskResources,
        server: ServerConfig,
        config: CleanupConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        database, artifacts = resources.database, resources.artifacts
        gc, erase = (
            Operation(
                self,
                name,
                resources=resources,
                command=name.lower(),
                environment=artifacts.sealing,
                config=server,
            )
            for name in ("Gc", "Erase")
        )
        database.grant_connect(gc.role, user=database.server_user)
        artifacts.grant_cleanup(gc.role)
        database.grant_connect(erase.role, user=database.server_user)
        artifacts.grant_erasure(erase.role)
        if config.deleted_days is None:
            return
        events.Rule(
            self,
            "Daily",
            description="Removes what was deleted from MLflow on AWS long enough ago",
            schedule=_DAILY,
            targets=[
                targets.EcsTask(
                    cluster=resources.cluster.cluster,
                    task_definition=gc.task.definition,
                    subnet_selection=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
                    security_groups=[gc.task.security_group],
                    container_overrides=[
                        targets.ContainerOverride(
                            container_name=gc.task.container_name,
                            command=["gc", "--days", str(config.deleted_days)],
                        )
                    ],
                )
            ],
        )
        acknowledge_resource(
            gc.task.definition,
            cdk.Stack.of(self).format_arn(
                service="ecs",
                account="*",
                resource="task",
                resource_name=f"{resources.cluster.cluster.cluster_name}/*",
            ),
            because="the id of a task is not known before it runs; the cluster is ours",
        )
