"""The stack of what is disposable."""

import aws_cdk as cdk
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.foundation.stack import MlflowFoundation
from stacks.service.cluster import Cluster
from stacks.service.ingress import Ingress
from stacks.service.migration import Migration
from stacks.service.server_image import ServerImage
from stacks.service.server_task import Platform
from stacks.service.tracking_server import TrackingServer


class MlflowService(cdk.Stack):
    """Image, tasks and load balancer. Destroy it and deploy it again: no run is lost."""

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
            description="MLflow on AWS: tracking server and load balancer",
            env=cdk.Environment(account=environment.account, region=environment.region),
            tags=environment.tags,
        )
        vpc, database, artifacts = foundation.network.vpc, foundation.database, foundation.artifacts
        logs, log_key, config = foundation.access_logs.bucket, foundation.log_key, environment.server

        image = ServerImage(self, "Image", config=config)
        cluster = Cluster(self, "Cluster", vpc=vpc, log_key=log_key, config=config)
        platform = Platform(cluster=cluster, image=image, database=database, artifacts=artifacts)
        migration = Migration(self, "Migration", platform=platform, log_key=log_key, config=config)
        server = TrackingServer(
            self, "Server", platform=platform, public_url=environment.ingress.url, config=config
        )
        server.start_after(migration.completed)
        ingress = Ingress(
            self, "Ingress", vpc=vpc, server=server, access_logs=logs, config=environment.ingress
        )
        server.scale_with(ingress.target_group)

        cdk.CfnOutput(self, "TrackingUrl", value=environment.ingress.url)
        cdk.CfnOutput(self, "ArtifactBucket", value=artifacts.bucket.bucket_name)
        cdk.CfnOutput(self, "ClusterName", value=cluster.cluster.cluster_name)
        cdk.CfnOutput(self, "ServiceName", value=server.service.service_name)
        cdk.CfnOutput(self, "DatabaseEndpoint", value=database.instance.instance_endpoint.socket_address)
        cdk.CfnOutput(self, "ArtifactKeyArn", value=artifacts.key.key_arn)
        cdk.CfnOutput(self, "LoadBalancerDnsName", value=ingress.load_balancer.load_balancer_dns_name)
