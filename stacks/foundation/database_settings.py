"""What the engines of the database have in common, whichever of them runs it."""

import hashlib
from collections.abc import Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.config import DatabaseConfig
from stacks.operational_log import OperationalLog

INSIGHTS = {"standard": rds.DatabaseInsightsMode.STANDARD, "advanced": rds.DatabaseInsightsMode.ADVANCED}
# Each mode of Database Insights has one retention.
INSIGHTS_RETENTION = {
    "standard": rds.PerformanceInsightRetention.DEFAULT,
    "advanced": rds.PerformanceInsightRetention.MONTHS_15,
}
CERTIFICATE_AUTHORITY = rds.CaCertificate.RDS_CA_RSA2048_G1


def postgresql_parameters(config: DatabaseConfig) -> dict[str, str]:
    """Return PostgreSQL's settings that differ from RDS's defaults, or that must not depend on them."""
    return {
        "rds.force_ssl": "1",
        "max_connections": str(config.max_connections),
        "log_statement": "ddl",
        "log_min_duration_statement": "1000",
        # A client that died inside a transaction must not hold its locks forever.
        "idle_in_transaction_session_timeout": "300000",
    }


def engine_properties(
    *,
    administrator: str,
    vpc: ec2.IVpc,
    security_group: ec2.ISecurityGroup,
    key: kms.IKey,
    config: DatabaseConfig,
) -> dict[str, Any]:
    """Return the properties that an instance and a cluster share: who gets in, and what survives."""
    insights = config.insights != "off"
    return {
        "vpc": vpc,
        "vpc_subnets": ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
        "security_groups": [security_group],
        "port": config.port,
        "credentials": rds.Credentials.from_username(administrator, encryption_key=key),
        "manage_master_user_password": True,
        "iam_authentication": True,
        "storage_encryption_key": key,
        "auto_minor_version_upgrade": True,
        "copy_tags_to_snapshot": True,
        "delete_automated_backups": False,
        "deletion_protection": config.deletion_protection,
        "removal_policy": cdk.RemovalPolicy.SNAPSHOT,
        "preferred_maintenance_window": config.maintenance_window,
        "monitoring_interval": cdk.Duration.seconds(config.monitoring_seconds),
        "enable_performance_insights": insights,
        "database_insights_mode": INSIGHTS.get(config.insights),
        "performance_insight_encryption_key": key if insights else None,
        "performance_insight_retention": INSIGHTS_RETENTION.get(config.insights),
    }


def identifier_of(name: str, config: DatabaseConfig) -> str:
    """Return the database's identifier: another one for each snapshot that it was restored from.

    Named, so that its log groups can exist before RDS makes its own, and so that CloudFormation cannot
    replace the database with an empty one: it would have the same name.
    """
    if config.restore_from is None:
        return name.lower()
    return f"{name.lower()}-{hashlib.sha256(config.restore_from.encode()).hexdigest()[:8]}"


def keep_when_replaced(engine: Construct) -> None:
    """Keep the database that a restored one replaces, and let others follow to the new one.

    A reference by export could not change while it is in use. BOTH leaves the exports to a service that was
    deployed with them.
    """
    resource = engine.node.default_child
    assert isinstance(resource, cdk.CfnResource)  # noqa: S101
    resource.cfn_options.update_replace_policy = cdk.CfnDeletionPolicy.RETAIN
    cdk.CrossStackReferences.of(engine).produce(cdk.ReferenceStrength.BOTH)


def create_log_groups(
    engine: Construct, name: str, kinds: Sequence[str], *, log_key: kms.IKey, config: DatabaseConfig
) -> None:
    """Create the log groups below `name` before RDS does, so that they are encrypted and expire."""
    resource = engine.node.default_child
    assert resource is not None  # noqa: S101
    for kind in kinds:
        log = OperationalLog(
            engine, f"{kind.title()}Log", name=f"{name}/{kind}", key=log_key, days=config.log_days
        )
        resource.node.add_dependency(log)


def acknowledge_findings(engine: Construct, *, config: DatabaseConfig) -> None:
    """Accept that a file may turn deletion protection off, and the policy that enhanced monitoring needs."""
    if not config.deletion_protection:
        acknowledge(
            engine,
            "AwsSolutions-RDS10",
            because="the environment's file chose to be deletable (database.deletion_protection); "
            "deleting it leaves a snapshot",
        )
    if config.monitoring_seconds:
        acknowledge(
            engine,
            "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
            "AmazonRDSEnhancedMonitoringRole]",
            because="AWS keeps this policy in step with what enhanced monitoring writes: its logs only",
        )
