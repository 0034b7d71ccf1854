"""The Aurora cluster behind the database."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.config import DatabaseConfig
from stacks.foundation.database_settings import (
    CERTIFICATE_AUTHORITY,
    acknowledge_findings,
    create_log_groups,
    engine_properties,
    identifier_of,
    keep_when_replaced,
    postgresql_parameters,
)

# Aurora has no log of upgrades.
EXPORTED_LOGS = ("postgresql",)
STORAGE = {"aurora": rds.DBClusterStorageType.AURORA, "aurora-iopt1": rds.DBClusterStorageType.AURORA_IOPT1}


class AuroraCluster(rds.DatabaseCluster):
    """Aurora PostgreSQL: a writer, and readers that take over from it, with their parameters in `scope`."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        database_name: str,
        administrator: str,
        vpc: ec2.IVpc,
        security_group: ec2.ISecurityGroup,
        key: kms.IKey,
        log_key: kms.IKey,
        config: DatabaseConfig,
    ) -> None:
        engine = rds.DatabaseClusterEngine.aurora_postgres(
            version=rds.AuroraPostgresEngineVersion.of(config.engine_version, config.engine_version)
        )
        # For every instance too: with groups of their own, RDS refuses the next major version.
        parameters = rds.ParameterGroup(
            scope,
            "ClusterParameters",
            engine=engine,
            description="MLflow on AWS",
            parameters=postgresql_parameters(config),
        )

        def instance(name: str) -> rds.IClusterInstance:
            shared: dict[str, Any] = {
                "publicly_accessible": False,
                "auto_minor_version_upgrade": True,
                "ca_certificate": CERTIFICATE_AUTHORITY,
                "preferred_maintenance_window": config.maintenance_window,
            }
            if not config.serverless:
                return rds.ClusterInstance.provisioned(
                    name, instance_type=ec2.InstanceType(config.instance_class), **shared
                )
            # The reader that takes over must be as large as the writer at that moment.
            return rds.ClusterInstance.serverless_v2(
                name, scale_with_writer=name in ("Writer", "Reader1"), **shared
            )

        identifier = identifier_of(f"{cdk.Stack.of(scope).stack_name}-cluster", config)
        super().__init__(
            scope,
            construct_id,
            cluster_identifier=identifier,
            engine=engine,
            writer=instance("Writer"),
            readers=[instance(f"Reader{number}") for number in range(1, config.readers + 1)],
            serverless_v2_min_capacity=config.min_acu if config.serverless else None,
            serverless_v2_max_capacity=config.max_acu if config.serverless else None,
            parameter_group=parameters,
            default_database_name=database_name,
            storage_type=STORAGE[config.storage_type],
            storage_encrypted=True,
            backup=rds.BackupProps(
                retention=cdk.Duration.days(config.backup_days), preferred_window=config.backup_window
            ),
            enable_cluster_level_enhanced_monitoring=config.monitoring_seconds > 0,
            cloudwatch_logs_exports=list(EXPORTED_LOGS),
            **engine_properties(
                administrator=administrator, vpc=vpc, security_group=security_group, key=key, config=config
            ),
        )
        self.arn = self.cluster_arn
        self.dimensions = {"DBClusterIdentifier": identifier, "Role": "WRITER"}
        if config.restore_from is not None:
            self._restore(config.restore_from)
        keep_when_replaced(self)
        self.endpoint = self.cluster_endpoint
        self.reader_endpoint = self.cluster_read_endpoint if config.readers else None
        name = f"/aws/rds/cluster/{identifier}"
        cdk.Annotations.of(self).acknowledge_warning(
            "@aws-cdk/aws-rds:instancePerformanceInsightsOverridden",
            "the cluster's setting is the one that is meant, for every instance",
        )
        create_log_groups(self, name, EXPORTED_LOGS, log_key=log_key, config=config)
        acknowledge_findings(self, config=config)

    def _restore(self, snapshot: str) -> None:
        """Take what the snapshot holds, and say nothing of what comes with it.

        https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-rds-dbcluster.html:
        with SnapshotIdentifier, neither MasterUsername nor, of an encrypted snapshot, StorageEncrypted may be
        given; KmsKeyId may, and becomes the cluster's key, whatever the snapshot's was.
        """
        resource = self.node.default_child
        assert isinstance(resource, rds.CfnDBCluster)  # noqa: S101
        resource.snapshot_identifier = snapshot
        for inherited in ("DatabaseName", "MasterUsername", "StorageEncrypted"):
            resource.add_property_deletion_override(inherited)
        acknowledge(
            self,
            "AwsSolutions-RDS2",
            because="a restored cluster is encrypted as its snapshot is, or with the key that is named",
        )
