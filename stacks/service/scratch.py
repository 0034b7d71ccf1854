"""The stack of what works on a scratch database, for as long as there is one."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.boundary import limit_permissions
from stacks.config import EnvironmentConfig
from stacks.cost_config import deployment_tags
from stacks.foundation.stack import MlflowFoundation
from stacks.service.cluster import Cluster
from stacks.service.operation import Operation
from stacks.service.server_image import ServerImage
from stacks.service.server_task import TaskResources


class MlflowScratch(cdk.Stack):
    """The image that this tree would deploy, and its tasks for rehearsals and drills.

    Their roles reach the one scratch database that the parameter names; a drill reads the living one too.
    It asks of the foundation nothing that the service does not: the deployed foundation stays as it is.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        foundation: MlflowFoundation,
        environment: EnvironmentConfig,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            description="MLflow on AWS: rehearsals and drills; removed after each",
            env=cdk.Environment(account=environment.account, region=environment.region),
            tags=deployment_tags(construct_id, environment.tags),
        )
        limit_permissions(self, environment.permissions_boundary)
        database, config = foundation.database, environment.server
        scratch = cdk.CfnParameter(self, "Scratch", description="The resource id of the scratch database")
        resources = TaskResources(
            cluster=Cluster(
                self, "Cluster", vpc=foundation.network.vpc, log_key=foundation.log_key, config=config
            ),
            image=ServerImage(self, "Image", log_key=foundation.log_key, config=config),
            database=database,
            artifacts=foundation.artifacts,
        )
        rehearse = Operation(
            self,
            "Rehearse",
            resources=resources,
            command="rehearse",
            environment={
                "MLFLOW_AWS_DATABASE_MIGRATOR": database.migrator_user,
                # Only its name: the role may not read it.
                "MLFLOW_AWS_MASTER_SECRET_ARN": database.administrator_secret_arn,
            },
            config=config,
        )
        self._let_in(rehearse, scratch, database.migrator_user, database.server_user)
        drill = Operation(self, "Drill", resources=resources, command="drill", environment={}, config=config)
        self._let_in(drill, scratch, database.server_user)
        database.grant_connect(drill.role, user=database.server_user)

    def _let_in(self, operation: Operation, scratch: cdk.CfnParameter, *users: str) -> None:
        operation.role.add_to_policy(
            iam.PolicyStatement(
                actions=["rds-db:connect"],
                resources=[
                    self.format_arn(
                        service="rds-db",
                        resource="dbuser",
                        resource_name=f"{scratch.value_as_string}/{user}",
                        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                    )
                    for user in users
                ],
            )
        )
