"""Where tasks run and where they log."""

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.config import ServerConfig
from stacks.operational_log import OperationalLog

INSIGHTS = {
    "disabled": ecs.ContainerInsights.DISABLED,
    "enabled": ecs.ContainerInsights.ENABLED,
    "enhanced": ecs.ContainerInsights.ENHANCED,
}


class Cluster(Construct):
    """A Fargate cluster, with one encrypted log for all its tasks."""

    def __init__(
        self, scope: Construct, construct_id: str, *, vpc: ec2.IVpc, log_key: kms.IKey, config: ServerConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self.vpc = vpc
        self.log = OperationalLog(self, "Log", key=log_key, days=config.log_days)
        self.cluster = ecs.Cluster(
            self,
            "Cluster",
            vpc=vpc,
            container_insights_v2=INSIGHTS[config.container_insights],
            enable_fargate_capacity_providers=True,
        )
        if config.container_insights == "disabled":
            acknowledge(
                self.cluster,
                "AwsSolutions-ECS4",
                because="this environment's file chose the free metrics of ECS and the load balancer "
                "(server.container_insights)",
            )
