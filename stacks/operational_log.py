"""Logs that are read by operators and auditors, and that expire."""

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct


class OperationalLog(logs.LogGroup):
    """A log group that is encrypted with `key` and keeps events for `days` days."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        key: kms.IKey,
        days: int,
        name: str | None = None,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.DESTROY,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            log_group_name=name,
            encryption_key=key,
            removal_policy=removal_policy,
        )
        # The L2 takes a member of an enumeration; the schema has already refused any other value.
        group = self.node.default_child
        assert isinstance(group, logs.CfnLogGroup)  # noqa: S101
        group.retention_in_days = days
