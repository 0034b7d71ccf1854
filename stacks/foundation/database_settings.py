"""What the database and its replica have in common."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds

from stacks.acknowledge import acknowledge
from stacks.config import DatabaseConfig
from stacks.operational_log import OperationalLog

EXPORTED_LOGS = ("postgresql", "upgrade")
INSIGHTS = {"standard": rds.DatabaseInsightsMode.STANDARD, "advanced": rds.DatabaseInsightsMode.ADVANCED}
# Each mode of Database Insights has one retention.
INSIGHTS_RETENTION = {
    "standard": rds.PerformanceInsightRetention.DEFAULT,
    "advanced": rds.PerformanceInsightRetention.MONTHS_15,
}


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


def instance_properties(config: DatabaseConfig, *, key: kms.IKey) -> dict[str, Any]:
    """Return the properties that an instance and its replica share."""
    insights = config.insights != "off"
    return {
        "port": config.port,
        "storage_type": rds.StorageType.GP3,
        "max_allocated_storage": config.max_storage_gib,
        "iam_authentication": True,
        "publicly_accessible": False,
        "vpc_subnets": ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
        "auto_minor_version_upgrade": True,
        "copy_tags_to_snapshot": True,
        "deletion_protection": config.deletion_protection,
        "preferred_maintenance_window": config.maintenance_window,
        "ca_certificate": rds.CaCertificate.RDS_CA_RSA2048_G1,
        "cloudwatch_logs_exports": list(EXPORTED_LOGS),
        "monitoring_interval": cdk.Duration.seconds(config.monitoring_seconds),
        "enable_performance_insights": insights,
        "database_insights_mode": INSIGHTS.get(config.insights),
        "performance_insight_encryption_key": key if insights else None,
        "performance_insight_retention": INSIGHTS_RETENTION.get(config.insights),
    }


def create_log_groups(
    instance: rds.DatabaseInstanceBase, identifier: str, *, log_key: kms.IKey, config: DatabaseConfig
) -> None:
    """Create the log groups before RDS does, so that they are encrypted and expire."""
    resource = instance.node.default_child
    assert resource is not None  # noqa: S101
    for kind in EXPORTED_LOGS:
        log = OperationalLog(
            instance,
            f"{kind.title()}Log",
            name=f"/aws/rds/instance/{identifier}/{kind}",
            key=log_key,
            days=config.log_days,
        )
        resource.node.add_dependency(log)


def acknowledge_findings(instance: rds.DatabaseInstanceBase, *, config: DatabaseConfig) -> None:
    """Accept that a file may turn deletion protection off, and the policy that enhanced monitoring needs."""
    if not config.deletion_protection:
        acknowledge(
            instance,
            "AwsSolutions-RDS10",
            because="the environment's file chose to be deletable (database.deletion_protection); "
            "deleting it leaves a snapshot",
        )
    if config.monitoring_seconds:
        acknowledge(
            instance,
            "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
            "AmazonRDSEnhancedMonitoringRole]",
            because="AWS keeps this policy in step with what enhanced monitoring writes: its logs only",
        )
