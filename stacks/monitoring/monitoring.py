"""Everything that watches the platform, wired."""

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elb
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.foundation.stack import MlflowFoundation
from stacks.monitoring.causes import Alarms, Dimensions
from stacks.monitoring.dashboard import Dashboard
from stacks.monitoring.notices import Notices
from stacks.monitoring.topics import Topics


class Monitoring(Construct):
    """Alarms, and who is told; a release that makes its alarms ring is taken back."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        foundation: MlflowFoundation,
        service: ecs.FargateService,
        load_balancer: elb.ApplicationLoadBalancer,
        target_group: elb.ApplicationTargetGroup,
        certificate_arn: str,
        undelivered_queue: str | None,
        environment: EnvironmentConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        self.topics = Topics(self, "Topics", key=foundation.log_key, config=environment.monitoring)
        balancer = {"LoadBalancer": load_balancer.load_balancer_full_name}
        stack = cdk.Stack.of(self)
        bucket = {"BucketName": foundation.artifacts.bucket.bucket_name}
        dimensions: Dimensions = {
            "balancer": balancer,
            "targets": {**balancer, "TargetGroup": target_group.target_group_full_name},
            "service": {"ClusterName": service.cluster.cluster_name, "ServiceName": service.service_name},
            "database": foundation.database.dimensions,
            "reader": {**foundation.database.dimensions, "Role": "READER"},
            "bucket": {**bucket, "FilterId": "EntireBucket"},
            "size": {**bucket, "StorageType": "StandardStorage"},
            "certificate": {"CertificateArn": certificate_arn},
            **({"undelivered": {"QueueName": undelivered_queue}} if undelivered_queue else {}),
            "server": {"Deployment": stack.stack_name},
        }
        self.alarms = Alarms(
            self,
            "Alarms",
            dimensions=dimensions,
            pages=self.topics.pages,
            tickets=self.topics.tickets,
            environment=environment,
        )
        self.topics.grant_publish(
            "cloudwatch.amazonaws.com", resource="alarm", separator=cdk.ArnFormat.COLON_RESOURCE_NAME
        )
        Notices(
            self,
            "Notices",
            topics=self.topics,
            foundation=foundation,
            service=service,
            environment=environment,
        )
        self.alarms.start_after(service)
        if environment.monitoring.dashboard:
            Dashboard(
                self,
                "Dashboard",
                alarms=self.alarms,
                dimensions=dimensions,
                runbook_url=environment.monitoring.runbook_url,
            )
        service.enable_deployment_alarms(
            self.alarms.of_deployments, behavior=ecs.AlarmBehavior.ROLLBACK_ON_ALARM
        )
