"""The stack of what you would miss."""

import aws_cdk as cdk
from constructs import Construct

from stacks.boundary import limit_permissions
from stacks.config import EnvironmentConfig
from stacks.cost_config import deployment_tags
from stacks.foundation.access_logs import AccessLogs
from stacks.foundation.account_switches import AccountSwitches
from stacks.foundation.artifact_store import ArtifactStore
from stacks.foundation.backup import Backup
from stacks.foundation.break_glass import BreakGlass
from stacks.foundation.clients import Clients
from stacks.foundation.database import Database
from stacks.foundation.log_key import log_key
from stacks.foundation.network import Network, zones_of
from stacks.foundation.server_role import server_role
from stacks.foundation.user_directory import UserDirectory
from stacks.foundation.verifier import Verifier
from stacks.foundation.webhook_key import WebhookKeySecret
from stacks.operational_log import OperationalLog
from stacks.recovery.stack import MlflowRecovery
from stacks.reminders import remind


class MlflowFoundation(cdk.Stack):
    """Network, database, artifacts, keys, identities. Deleting it is refused; what holds data survives."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: EnvironmentConfig,
        recovery: MlflowRecovery | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            description="MLflow on AWS: network, database, artifacts and identities",
            env=cdk.Environment(account=environment.account, region=environment.region),
            termination_protection=environment.termination_protection,
            tags=deployment_tags(construct_id, environment.tags),
        )
        if recovery:
            self.add_stack_dependency(recovery)
        remind(self, environment)
        limit_permissions(self, environment.permissions_boundary)
        self._zones = zones_of(environment.network)
        self.log_key = log_key(self, "LogKey", arn=environment.log_key_arn)
        self.audit_log = OperationalLog(
            self,
            "AuditLog",
            key=self.log_key,
            days=environment.server.audit_log_days,
            removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )
        self.network = Network(self, "Network", log_key=self.log_key, config=environment.network)
        self.database = Database(
            self, "Database", vpc=self.network.vpc, log_key=self.log_key, config=environment.database
        )
        self.break_glass = BreakGlass(self, "BreakGlass", database=self.database)
        self.access_logs = AccessLogs(self, "AccessLogs", config=environment.artifacts)
        self.server_role = server_role(self, "ServerRole")
        self.artifacts = ArtifactStore(
            self,
            "Artifacts",
            access_logs=self.access_logs.bucket,
            server_role=self.server_role,
            pages=environment.ingress.url,
            recovery=recovery,
            config=environment.artifacts,
        )
        self.database.grant_connect(self.server_role, user=self.database.server_user)
        self.webhook_key = WebhookKeySecret(
            self, "WebhookKey", database=self.database, reader=self.server_role
        )
        self.people = UserDirectory(self, "People", url=environment.ingress.url, config=environment.identity)
        self.account_switches = AccountSwitches(
            self, "Federation", log_key=self.log_key, config=environment.identity
        )
        self.verifier = Verifier(self, "Verifier")
        self.clients = Clients(
            self,
            "Clients",
            artifacts=self.artifacts,
            account_switches=self.account_switches,
            audit_log=self.audit_log,
            verifier=self.verifier.policy,
            environment=environment,
        )
        if environment.backup:
            Backup(
                self,
                "Backup",
                database_arn=self.database.arn,
                bucket=self.artifacts.bucket,
                recovery=recovery,
                config=environment.backup,
            )
        # The database takes longest and refuses to be deleted: whatever can fail does so before it exists.
        self.database.create_after(
            self.account_switches,
            self.network,
            self.people,
            self.artifacts,
            self.access_logs,
            self.clients,
            self.verifier,
            self.webhook_key,
        )

    @property
    def availability_zones(self) -> list[str]:
        """The zones, without asking AWS: synthesis needs no credentials."""
        return self._zones
