"""The tracking server as a service."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct, IDependable

from stacks.config import ROLLOUT_FACTOR, IngressConfig, ServerConfig
from stacks.service.audit_container import add_audit_container
from stacks.service.server_task import ServerTask, TaskResources

PORT = 5000


class TrackingServer(Construct):
    """MLflow that survives a task, a zone and a bad release.

    A release that does not become healthy is rolled back. A database failover, a minute or two, does not
    make ECS replace tasks. Clients write artifacts; the server's role reads them, and writes sealed copies.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        resources: TaskResources,
        role: iam.Role,
        audit_log: logs.ILogGroup,
        ingress: IngressConfig,
        identity: Mapping[str, str],
        webhook_key_arn: str,
        event_bus_arn: str,
        config: ServerConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        reader = resources.database.reader_endpoint
        task = ServerTask(
            self,
            "Task",
            resources=resources,
            role=role,
            command="serve",
            environment={
                "MLFLOW_AWS_PUBLIC_URL": ingress.url,
                "MLFLOW_AWS_KEEP_ALIVE_SECONDS": str(ingress.keep_alive_seconds),
                "MLFLOW_AWS_PORT": str(PORT),
                "MLFLOW_AWS_DEPLOYMENT": cdk.Stack.of(self).stack_name,
                "MLFLOW_AWS_WEBHOOK_KEY_ARN": webhook_key_arn,
                "MLFLOW_AWS_EVENT_BUS_ARN": event_bus_arn,
                **({"MLFLOW_AWS_DATABASE_READER_HOST": reader.hostname} if reader else {}),
                **config.variables,
                **resources.artifacts.sealing,
                **identity,
            },
            health_check=ecs.HealthCheck(
                command=["CMD", "python", "-m", "mlflow_aws_server", "healthcheck"],
                interval=cdk.Duration.seconds(30),
                timeout=cdk.Duration.seconds(10),
                # Five minutes: longer than the database's failover.
                retries=10,
                start_period=cdk.Duration.seconds(120),
            ),
            config=config,
        )
        task.container.add_port_mappings(ecs.PortMapping(container_port=PORT))
        add_audit_container(task, image=resources.image, log=audit_log)
        self.service = ecs.FargateService(
            self,
            "Service",
            cluster=resources.cluster.cluster,
            task_definition=task.definition,
            security_groups=[task.security_group],
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            assign_public_ip=False,
            capacity_provider_strategies=[
                ecs.CapacityProviderStrategy(
                    capacity_provider="FARGATE_SPOT" if config.spot else "FARGATE", weight=1
                )
            ],
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            min_healthy_percent=100,
            max_healthy_percent=100 * ROLLOUT_FACTOR,
            availability_zone_rebalancing=ecs.AvailabilityZoneRebalancing.ENABLED,
            health_check_grace_period=cdk.Duration.seconds(120),
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
            enable_ecs_managed_tags=True,
        )
        # Its permissions and its path to the database come first: ECS counts failed starts.
        self.service.node.add_dependency(task)
        # Deleting a cluster's capacity providers fails while a service uses one of them.
        self.service.node.add_dependency(resources.cluster.cluster)

    def start_after(self, migration: IDependable) -> None:
        """Create or change the service only once the migration has succeeded."""
        self.service.node.add_dependency(migration)

    def scale_with(self, target_group: elb.ApplicationTargetGroup) -> None:
        """Follow the load: CPU, and the requests that this target group counts per task."""
        scaling = self.service.auto_scale_task_count(
            min_capacity=self._config.min_tasks, max_capacity=self._config.max_tasks
        )
        scaling.scale_on_cpu_utilization("Cpu", target_utilization_percent=self._config.cpu_target_percent)
        scaling.scale_on_request_count(
            "Requests", requests_per_target=self._config.requests_per_task, target_group=target_group
        )
