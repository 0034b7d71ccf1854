"""The stack of the second region."""

import aws_cdk as cdk
from constructs import Construct

from stacks.backup_config import BackupConfig, RecoveryConfig
from stacks.backup_vault import Vault
from stacks.boundary import limit_permissions
from stacks.config import EnvironmentConfig
from stacks.cost_config import deployment_tags
from stacks.recovery.replica import Replica


class MlflowRecovery(cdk.Stack):
    """A vault and a replica of the artifact bucket, where the loss of the first region does not reach.

    What the first region names is named here by the stack's name: no value travels between the regions.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: EnvironmentConfig,
        backup: BackupConfig,
        recovery: RecoveryConfig,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            description="MLflow on AWS: copies of backups and artifacts in a second region",
            env=cdk.Environment(account=environment.account, region=recovery.region),
            termination_protection=environment.termination_protection,
            tags=deployment_tags(construct_id, environment.tags),
        )
        limit_permissions(self, environment.permissions_boundary)
        name = self.stack_name.lower()
        Vault(self, "Backups", name=name, lock=backup.lock)
        self.vault_arn = self.format_arn(
            service="backup",
            resource="backup-vault",
            resource_name=name,
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        self.replica = Replica(self, "Replica", config=environment.artifacts) if recovery.replicate else None


def recovery_of(
    scope: Construct, construct_id: str, *, environment: EnvironmentConfig
) -> MlflowRecovery | None:
    """Return the stack that the environment's file asks for, if it does."""
    backup = environment.backup
    if backup is None or backup.recovery is None:
        return None
    return MlflowRecovery(
        scope, construct_id, environment=environment, backup=backup, recovery=backup.recovery
    )
