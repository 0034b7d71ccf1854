"""What an operator runs once in the cluster, beside the server."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from stacks.config import ServerConfig
from stacks.service.server_task import ServerTask, TaskResources


class Operation(Construct):
    """A task that nothing starts but an operator, under a role of its own, which may do nothing yet.

    The stack's output `Operation` and the construct's id tells `operations/` where and how it runs.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        resources: TaskResources,
        command: str,
        environment: Mapping[str, str],
        config: ServerConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        stack, cluster = cdk.Stack.of(self), resources.cluster
        self.task = ServerTask(
            self, "Task", resources=resources, command=command, environment=environment, config=config
        )
        self.role = self.task.role
        subnets = cluster.vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
        place = {
            "command": command,
            "cluster": cluster.cluster.cluster_name,
            "task_definition": self.task.definition.task_definition_arn,
            "subnets": subnets.subnet_ids,
            "security_groups": [self.task.security_group.security_group_id],
            "container": self.task.container_name,
            "log_group": cluster.log.log_group_name,
            "log_stream_prefix": self.task.log_stream_prefix,
        }
        cdk.CfnOutput(stack, f"Operation{construct_id}", value=stack.to_json_string(place))


def owner_operation(
    scope: Construct, construct_id: str, *, resources: TaskResources, config: ServerConfig
) -> Operation:
    """A task that writes as the owner of MLflow's schema; its command has the construct's id."""
    database = resources.database
    operation = Operation(
        scope,
        construct_id,
        resources=resources,
        command=construct_id.lower(),
        environment={"MLFLOW_AWS_DATABASE_MIGRATOR": database.migrator_user},
        config=config,
    )
    database.grant_connect(operation.role, user=database.migrator_user)
    return operation
