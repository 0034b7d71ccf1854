"""The stack of what is disposable."""

import aws_cdk as cdk
from constructs import Construct

from stacks.boundary import limit_permissions
from stacks.config import EnvironmentConfig
from stacks.cost_config import deployment_tags
from stacks.foundation.stack import MlflowFoundation
from stacks.monitoring.events import Events
from stacks.monitoring.monitoring import Monitoring
from stacks.monitoring.saved_queries import SavedQueries
from stacks.monitoring.spending import Spending
from stacks.service.canary import Canary
from stacks.service.cleanup import Cleanup
from stacks.service.cluster import Cluster
from stacks.service.firewall import Firewall
from stacks.service.ingress import Ingress
from stacks.service.migration import Migration
from stacks.service.operation import owner_operation
from stacks.service.outputs import publish
from stacks.service.server_identity import server_identity
from stacks.service.server_image import ServerImage
from stacks.service.server_task import TaskResources
from stacks.service.sign_in import SignIn
from stacks.service.tracking_server import TrackingServer


class MlflowService(cdk.Stack):
    """Image, tasks, sign-in and load balancer. Destroy it and deploy it again: no run is lost."""

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
            tags=deployment_tags(construct_id, environment.tags),
        )
        limit_permissions(self, environment.permissions_boundary)
        database, artifacts = foundation.database, foundation.artifacts
        url, config = environment.ingress.url, environment.server

        image = ServerImage(self, "Image", log_key=foundation.log_key, config=config)
        cluster = Cluster(
            self, "Cluster", vpc=foundation.network.vpc, log_key=foundation.log_key, config=config
        )
        resources = TaskResources(cluster=cluster, image=image, database=database, artifacts=artifacts)
        migration = Migration(
            self,
            "Migration",
            resources=resources,
            log_key=foundation.log_key,
            config=config,
        )
        Cleanup(self, "Cleanup", resources=resources, server=config, config=environment.cleanup)
        canary = (
            Canary(self, "Canary", resources=resources, url=url, server=config, config=environment.canary)
            if environment.canary.enabled
            else None
        )
        sign_in = SignIn(self, "SignIn", people=foundation.people, url=url, config=environment.identity)
        identity = server_identity(
            self, foundation=foundation, sign_in=sign_in, canary=canary, environment=environment
        )
        events = Events(self, "Events", server_role=foundation.server_role, config=environment.events)
        server = TrackingServer(
            self,
            "Server",
            resources=resources,
            role=foundation.server_role,
            audit_log=foundation.audit_log,
            identity=identity,
            webhook_key_arn=foundation.webhook_key.arn,
            event_bus_arn=events.bus_arn,
            ingress=environment.ingress,
            config=config,
        )
        server.start_after(migration.completed)
        owner_operation(self, "Relocate", resources=resources, config=config)
        ingress = Ingress(
            self, "Ingress", foundation=foundation, server=server, sign_in=sign_in, environment=environment
        )
        server.scale_with(ingress.target_group)
        if environment.cost:
            Spending(self, "Spending", config=environment.cost)
        if canary is not None:
            canary.reach(ingress.load_balancer)
        Monitoring(
            self,
            "Monitoring",
            foundation=foundation,
            service=server.service,
            load_balancer=ingress.load_balancer,
            target_group=ingress.target_group,
            certificate_arn=ingress.certificate.certificate_arn,
            undelivered_queue=events.undelivered_queue,
            environment=environment,
        )
        firewall = environment.waf and Firewall(
            self,
            "Firewall",
            load_balancer=ingress.load_balancer,
            log_key=foundation.log_key,
            log_days=config.log_days,
            config=environment.waf,
        )
        SavedQueries(
            self,
            "Queries",
            audit_log=foundation.audit_log,
            firewall_log=firewall.log if firewall else None,
            access_logs=foundation.access_logs.bucket,
            artifacts=artifacts.bucket,
            days=environment.artifacts.access_log_days,
        )
        importing = owner_operation(self, "Import", resources=resources, config=config)
        artifacts.grant_read_archives(importing.role)
        publish(
            self,
            foundation=foundation,
            server=server,
            log=cluster.log,
            ingress=ingress,
            sign_in=sign_in,
            environment=environment,
        )
