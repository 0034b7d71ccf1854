"""The database's migration as a step of the deployment."""

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.config import ServerConfig
from stacks.operational_log import OperationalLog
from stacks.service.cluster import Cluster
from stacks.service.server_task import Platform, ServerTask

HANDLER = Path(__file__).parent / "migration_handler" / "index.py"
# The longest that Lambda allows.
TIMEOUT = cdk.Duration.minutes(15)


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
        platform: Platform,
        log_key: kms.IKey,
        config: ServerConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        cluster, database = platform.cluster, platform.database
        self._task = ServerTask(
            self,
            "Task",
            platform=platform,
            command="migrate",
            environment={
                "MLFLOW_AWS_DATABASE_MIGRATOR": database.migrator_user,
                "MLFLOW_AWS_MASTER_SECRET_ARN": database.administrator_secret_arn,
            },
            config=config,
        )
        database.grant_connect(self._task.role, user=database.migrator_user)
        database.grant_administer(self._task.role)
        log = OperationalLog(self, "RunnerLog", key=log_key, days=config.log_days)
        runner = lambda_.Function(
            self,
            "Runner",
            description="Runs the migration task of MLflow on AWS for CloudFormation",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            handler="index.handler",
            code=lambda_.Code.from_inline(HANDLER.read_text(encoding="utf-8")),
            timeout=TIMEOUT,
            memory_size=256,
            log_group=log,
            role=self._runner_role(cluster=cluster, log=log),
        )
        self.completed = cdk.CustomResource(
            self,
            "Completed",
            resource_type="Custom::MlflowMigration",
            service_token=runner.function_arn,
            service_timeout=TIMEOUT,
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
        # Started before its policies are attached, the task would be refused.
        self.completed.node.add_dependency(self._task)

    def _runner_role(self, *, cluster: Cluster, log: OperationalLog) -> iam.Role:
        stack = cdk.Stack.of(self)
        role = iam.Role(self, "RunnerRole", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        in_our_cluster = {"ArnEquals": {"ecs:cluster": cluster.cluster.cluster_arn}}
        tasks = stack.format_arn(
            service="ecs", resource="task", resource_name=f"{cluster.cluster.cluster_name}/*"
        )
        allow = [
            (["ecs:RunTask"], [self._task.definition.task_definition_arn], in_our_cluster),
            (["ecs:DescribeTasks", "ecs:StopTask"], [tasks], in_our_cluster),
            (
                ["iam:PassRole"],
                [self._task.role.role_arn, self._task.execution_role.role_arn],
                {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
            ),
            (["logs:GetLogEvents"], [cluster.log.log_group_arn], {}),
            (["logs:CreateLogStream", "logs:PutLogEvents"], [log.log_group_arn], {}),
            (["cloudformation:DescribeStacks"], [stack.stack_id], {}),
        ]
        for actions, resources, conditions in allow:
            role.add_to_policy(
                iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)
            )
        acknowledge_resource(
            role,
            tasks,
            because="the id of the migration task is not known before it runs; the cluster is ours",
        )
        return role
