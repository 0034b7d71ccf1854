"""The database's migration as a step of the deployment."""

import hashlib
import json
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
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

    It runs whenever its task definition changes, for as many hours as configured, fails the deployment if it
    fails, and quotes its log there. Its role alone may own the schema, sign in as the administrator, and take
    the snapshot that goes before a drain. A rollback runs nothing, and stops it.
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
        # As app.py names the stack.
        environment = cdk.Stack.of(self).stack_name.removeprefix("MlflowOnAws-").removesuffix("-Service")
        self._task = ServerTask(
            self,
            "Task",
            resources=resources,
            command="migrate",
            environment={
                "MLFLOW_AWS_DATABASE_MIGRATOR": database.migrator_user,
                "MLFLOW_AWS_MASTER_SECRET_ARN": database.administrator_secret_arn,
                "MLFLOW_AWS_DATABASE_REQUIRED_CONNECTIONS": str(config.required_connections),
                "MLFLOW_AWS_ENVIRONMENT": environment,
                "MLFLOW_AWS_DEPLOYMENT": cdk.Stack.of(self).stack_name,
                "MLFLOW_AWS_DATABASE_ARN": database.arn,
                "MLFLOW_AWS_SNAPSHOT_HOURS": str(config.migration_hours),
                **({"MLFLOW_AWS_RESTORED_FROM": database.restored_from} if database.restored_from else {}),
            },
            config=config,
        )
        database.grant_connect(self._task.role, user=database.migrator_user)
        database.grant_administer(self._task.role)
        database.grant_snapshot(self._task.role, named=f"mlflow-{environment}-before-*")
        runner = CustomResourceRunner(
            self,
            "Runner",
            id_prefix="Runner",
            handler=HANDLER,
            description="Runs the migration task of MLflow on AWS for CloudFormation",
            timeout=cdk.Duration.minutes(3),
            allow=self._permissions(cluster),
            log_key=log_key,
            log_days=config.log_days,
        )
        acknowledge_resource(
            runner.execution_role,
            _tasks_of(cluster),
            because="the id of the migration task is not known before it runs; the cluster is ours",
        )
        self.completed = self._wait(runner, resources, config)

    def _wait(
        self, runner: CustomResourceRunner, resources: TaskResources, config: ServerConfig
    ) -> cdk.CfnWaitCondition:
        cluster, definition = resources.cluster, self._task.definition.task_definition_arn
        # A wait condition waits once. A deployment that changes the task, or what it is made of, waits at one
        # with a new name.
        version = _version(self, resources.image, config.migration_hours)
        handle = cdk.CfnWaitConditionHandle(self, f"Signal{version}")
        started = runner.resource(
            "Started",
            resource_type="Custom::MlflowMigration",
            properties={
                "Cluster": cluster.cluster.cluster_arn,
                "TaskDefinition": definition,
                "Subnets": cluster.vpc.select_subnets(
                    subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS
                ).subnet_ids,
                "SecurityGroups": [self._task.security_group.security_group_id],
                # Only so that a new wait has a new task.
                "Signal": handle.ref,
            },
        )
        stopped = events.Rule(
            self,
            "Stopped",
            description="The migration task of MLflow on AWS has ended",
            event_pattern=events.EventPattern(
                source=["aws.ecs"],
                detail_type=["ECS Task State Change"],
                # A late event of an earlier deployment's task names another revision.
                detail={"taskDefinitionArn": [definition], "lastStatus": ["STOPPED"]},
            ),
            targets=[
                targets.LambdaFunction(
                    runner,
                    event=events.RuleTargetInput.from_object(
                        {
                            "Task": events.EventField.from_path("$.detail"),
                            "Signal": handle.ref,
                            "Container": self._task.container_name,
                            "LogGroup": cluster.log.log_group_name,
                            "LogStreamPrefix": self._task.log_stream_prefix,
                        }
                    ),
                )
            ],
        )
        # A task that starts before its policies are attached is refused access; one that ends before the
        # rule is there ends unseen.
        started.node.add_dependency(self._task, stopped, runner)
        completed = cdk.CfnWaitCondition(
            self,
            f"Completed{version}",
            handle=handle.ref,
            timeout=str(cdk.Duration.hours(config.migration_hours).to_seconds()),
        )
        completed.node.add_dependency(started)
        return completed

    def _permissions(self, cluster: Cluster) -> list[iam.PolicyStatement]:
        in_our_cluster = {"ArnEquals": {"ecs:cluster": cluster.cluster.cluster_arn}}
        allow = [
            (["ecs:RunTask"], [self._task.definition.task_definition_arn], in_our_cluster),
            (["ecs:StopTask"], [_tasks_of(cluster)], in_our_cluster),
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


def _version(migration: Construct, image: Construct, *more: object) -> str:
    """A short digest of every resource in both constructs: it changes if the task may have changed."""
    stack = cdk.Stack.of(migration)
    parts = [
        stack.resolve(each._cfn_properties)  # noqa: SLF001 - for subclasses; nothing else tells them
        for construct in (image, migration)
        for each in construct.node.find_all()
        if isinstance(each, cdk.CfnResource)
    ]
    return hashlib.sha256(json.dumps([parts, more], sort_keys=True).encode()).hexdigest()[:8]


def _tasks_of(cluster: Cluster) -> str:
    return cdk.Stack.of(cluster).format_arn(
        service="ecs", resource="task", resource_name=f"{cluster.cluster.cluster_name}/*"
    )
