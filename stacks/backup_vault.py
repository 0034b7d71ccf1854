"""Where backups are kept."""

import aws_cdk as cdk
from aws_cdk import aws_backup as backup
from constructs import Construct

from stacks.backup_config import VaultLockConfig
from stacks.keys import encryption_key


class Vault(Construct):
    """A vault with a key of its own; both outlive their stack, as the backups do."""

    def __init__(
        self, scope: Construct, construct_id: str, *, name: str, lock: VaultLockConfig | None
    ) -> None:
        super().__init__(scope, construct_id)
        self.key = encryption_key(self, "Key", arn=None, description="Backups of MLflow on AWS")
        self.vault = backup.BackupVault(
            self,
            "Vault",
            backup_vault_name=name,
            encryption_key=self.key,
            lock_configuration=_locked(lock) if lock else None,
            removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )


def _locked(lock: VaultLockConfig) -> backup.LockConfiguration:
    # Days of grace make it a compliance lock.
    grace = cdk.Duration.days(lock.grace_days) if lock.mode == "compliance" else None
    return backup.LockConfiguration(
        min_retention=cdk.Duration.days(lock.min_days),
        max_retention=cdk.Duration.days(lock.max_days),
        changeable_for=grace,
    )
