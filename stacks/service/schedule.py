"""A task that starts itself."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.service.cluster import Cluster
from stacks.service.server_task import ImageTask


def run_on_schedule(
    scope: Construct,
    construct_id: str,
    *,
    task: ImageTask,
    cluster: Cluster,
    schedule: events.Schedule,
    command: list[str],
    description: str,
) -> None:
    """Run the task in the private subnets, with this command, as often as the schedule says."""
    events.Rule(
        scope,
        construct_id,
        description=description,
        schedule=schedule,
        targets=[
            targets.EcsTask(
                cluster=cluster.cluster,
                task_definition=task.definition,
                subnet_selection=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
                security_groups=[task.security_group],
                # The deployment's tags, by which its cost is known.
                propagate_tags=ecs.PropagatedTagSource.TASK_DEFINITION,
                container_overrides=[
                    targets.ContainerOverride(container_name=task.container_name, command=command)
                ],
            )
        ],
    )
    acknowledge_resource(
        task.definition,
        cdk.Stack.of(scope).format_arn(
            service="ecs", account="*", resource="task", resource_name=f"{cluster.cluster.cluster_name}/*"
        ),
        because="the id of a task is not known before it runs; the cluster is ours",
    )
