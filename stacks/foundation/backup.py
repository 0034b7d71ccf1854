"""Backups of what you would miss, by AWS Backup."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_backup as backup
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.backup_config import BackupConfig
from stacks.backup_vault import Vault
from stacks.recovery.stack import MlflowRecovery


class Backup(Construct):
    """Daily backups of the database and a continuous one of the artifact bucket, in a vault of their own.

    The database has a continuous one already: RDS's automated backups, which AWS Backup would take over, and
    change behind CloudFormation's back. With a second region, each daily backup is copied there.

    https://docs.aws.amazon.com/aws-backup/latest/devguide/point-in-time-recovery.html
    https://docs.aws.amazon.com/aws-backup/latest/devguide/s3-backups.html
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        database_arn: str,
        bucket: s3.Bucket,
        recovery: MlflowRecovery | None,
        config: BackupConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        self._vault = Vault(self, "Backups", name=_new_name(self), lock=config.lock).vault
        self._config = config
        self._copies = self._copies_to(recovery)
        self._role = _role(self, bucket if config.artifacts else None)
        self._plan("Database", database_arn, [self._rule("Daily", copied=True)])
        if config.artifacts:
            _send_events(bucket)
            more = config.days > config.continuous_days
            rules = [self._rule("Continuous", continuous=True, copied=not more)]
            rules += [self._rule("Daily", copied=True)] if more else []
            self._plan("Artifacts", bucket.bucket_arn, rules)

    def _copies_to(self, recovery: MlflowRecovery | None) -> list[backup.BackupPlanCopyActionProps]:
        if recovery is None or self._config.recovery is None:
            return []
        vault = backup.BackupVault.from_backup_vault_arn(self, "Recovery", recovery.vault_arn)
        return [
            backup.BackupPlanCopyActionProps(
                destination_backup_vault=vault, delete_after=cdk.Duration.days(self._config.recovery.days)
            )
        ]

    def _rule(self, name: str, *, copied: bool, continuous: bool = False) -> backup.BackupPlanRule:
        days = self._config.continuous_days if continuous else self._config.days
        return backup.BackupPlanRule(
            rule_name=name,
            schedule_expression=events.Schedule.cron(hour=str(self._config.hour), minute="0"),
            delete_after=cdk.Duration.days(days),
            enable_continuous_backup=continuous or None,
            copy_actions=self._copies if copied else [],
        )

    def _plan(self, name: str, arn: str, rules: Sequence[backup.BackupPlanRule]) -> None:
        plan = backup.BackupPlan(self, f"{name}Plan", backup_vault=self._vault, backup_plan_rules=rules)
        plan.add_selection(
            name,
            resources=[backup.BackupResource.from_arn(arn)],
            role=self._role,
            disable_default_backup_policy=True,
        )


def _new_name(scope: Construct) -> str:
    """Another name for each stack that is created: the vault of one that was destroyed is still there."""
    stack = cdk.Stack.of(scope)
    identifier = cdk.Fn.select(2, cdk.Fn.split("/", stack.stack_id))
    return f"{stack.stack_name.lower()}-{cdk.Fn.select(0, cdk.Fn.split('-', identifier))}"


def _send_events(bucket: s3.Bucket) -> None:
    """Have S3 tell EventBridge of every change, as a continuous backup needs it; else AWS Backup does."""
    configuration = bucket.node.default_child
    assert isinstance(configuration, s3.CfnBucket)  # noqa: S101
    configuration.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
        event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
    )


def _role(scope: Construct, bucket: s3.Bucket | None) -> iam.Role:
    role = iam.Role(scope, "Role", assumed_by=iam.ServicePrincipal("backup.amazonaws.com"))
    policies = ["service-role/AWSBackupServiceRolePolicyForBackup"]
    if bucket is not None:
        policies.append("AWSBackupServiceRolePolicyForS3Backup")
        # The policy of AWS lets it read any bucket.
        role.add_to_policy(
            iam.PolicyStatement(
                effect=iam.Effect.DENY,
                actions=["s3:GetObject*"],
                not_resources=[bucket.arn_for_objects("*")],
            )
        )
    for each in policies:
        role.add_managed_policy(iam.ManagedPolicy.from_aws_managed_policy_name(each))
        acknowledge(
            role,
            f"AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{each}]",
            because="AWS keeps this policy in step with what AWS Backup does; it reads objects of this "
            "bucket only",
        )
    return role
