"""The database's migration as a step of the deployment."""

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.config import ServerConfig
from stacks.custom_resource import CustomResourceRunner
from stacks.service.cluster import Cluster
from stacks.service.server_task import ServerTask, TaskResources

HANDLER = Path(__file__).parent / "migration_handler" / "index.py"


class Migration(Construct):
    """A task that brings the schema to the image's version before the service starts or changes.

    It runs whenever its task definition changes, fails the deployment if it fails, and quotes its log there.
    Its role alone may own the schema and read the administrator's secret. A rollback runs nothing.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        resources: TaskResources,
        log_key: kms.IKey,
        config: ServerConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        cluster, database = resources.cluster, resources.database
        self._task = ServerTask(
            self,
            "Task",
            resources=resources,
            command="migrate",
            environment={
                "MLFLOW_AWS_DATABASE_MIGRATOR": database.migrator_user,
                "MLFLOW_AWS_MASTER_SECRET_ARN": database.administrator_secret_arn,
            },
            config=config,
        )
        database.grant_connect(self._task.role, user=database.migrator_user)
        database.grant_administer(self._task.role)
        runner = CustomResourceRunner(
            self,
            "Runner",
            id_prefix="Runner",
            handler=HANDLER,
            description="Runs the migration task of MLflow on AWS for CloudFormation",
            # The longest that Lambda allows.
            timeout=cdk.Duration.minutes(15),
            allow=self._permissions(cluster),
            log_key=log_key,
            log_days=config.log_days,
        )
        acknowledge_resource(
            runner.execution_role,
            _tasks_of(cluster),
            because="the id of the migration task is not known before it runs; the cluster is ours",
        )
        self.completed = runner.resource(
            "Completed",
            resource_type="Custom::MlflowMigration",
            properties={
                "Cluster": cluster.cluster.cluster_arn,
                "TaskDefinition": self._task.definition.task_definition_arn,
                "Container": self._task.container_name,
                "Subnets": cluster.vpc.select_subnets(
                    subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS
                ).subnet_ids,
                "SecurityGroups": [self._task.security_group.security_group_id],
                "LogGroup": cluster.log.log_group_name,
                "LogStreamPrefix": self._task.log_stream_prefix,
            },
        )
        # A task that starts before its policies are attached is refused access.
        self.completed.node.add_dependency(self._task)

    def _permissions(self, cluster: Cluster) -> list[iam.PolicyStatement]:
        in_our_cluster = {"ArnEquals": {"ecs:cluster": cluster.cluster.cluster_arn}}
        allow = [
            (["ecs:RunTask"], [self._task.definition.task_definition_arn], in_our_cluster),
            (["ecs:DescribeTasks", "ecs:StopTask"], [_tasks_of(cluster)], in_our_cluster),
            (
                ["iam:PassRole"],
                [self._task.role.role_arn, self._task.execution_role.role_arn],
                {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
            ),
            (["logs:GetLogEvents"], [cluster.log.log_group_arn], {}),
            (["cloudformation:DescribeStacks"], [cdk.Stack.of(self).stack_id], {}),
        ]
        return [
            iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)
            for actions, resources, conditions in allow
        ]


def _tasks_of(cluster: Cluster) -> str:
    return cdk.Stack.of(cluster).format_arn(
        service="ecs", resource="task", resource_name=f"{cluster.cluster.cluster_name}/*"
    )
