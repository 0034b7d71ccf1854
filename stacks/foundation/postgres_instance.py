"""The RDS instance behind the database."""

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

EXPORTED_LOGS = ("postgresql", "upgrade")


class PostgresInstance(rds.DatabaseInstance):
    """PostgreSQL on RDS, with its parameter group beside it in `scope`."""

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
        engine = rds.DatabaseInstanceEngine.postgres(
            version=rds.PostgresEngineVersion.of(config.engine_version, config.engine_version)
        )
        # The number is static. With another group, CloudFormation changes the instance and so restarts it; a
        # changed group would wait for the next restart.
        parameters = rds.ParameterGroup(
            scope,
            f"Parameters{config.max_connections}",
            engine=engine,
            description="MLflow on AWS",
            parameters=postgresql_parameters(config),
        )
        identifier = identifier_of(f"{cdk.Stack.of(scope).stack_name}-database", config)
        super().__init__(
            scope,
            construct_id,
            instance_identifier=identifier,
            engine=engine,
            # Which major version runs is the file's word; RDS refuses another one without this.
            allow_major_version_upgrade=True,
            instance_type=ec2.InstanceType(config.instance_class),
            parameter_group=parameters,
            database_name=database_name,
            storage_type=rds.StorageType.GP3,
            allocated_storage=config.storage_gib,
            max_allocated_storage=config.max_storage_gib,
            backup_retention=cdk.Duration.days(config.backup_days),
            preferred_backup_window=config.backup_window,
            multi_az=config.multi_az,
            publicly_accessible=False,
            ca_certificate=CERTIFICATE_AUTHORITY,
            cloudwatch_logs_exports=list(EXPORTED_LOGS),
            **engine_properties(
                administrator=administrator, vpc=vpc, security_group=security_group, key=key, config=config
            ),
        )
        self.arn = self.instance_arn
        self.dimensions = {"DBInstanceIdentifier": identifier}
        if config.restore_from is not None:
            self._restore(config.restore_from)
        keep_when_replaced(self)
        self.endpoint = self.instance_endpoint
        self.reader_endpoint: rds.Endpoint | None = None
        name = f"/aws/rds/instance/{identifier}"
        create_log_groups(self, name, EXPORTED_LOGS, log_key=log_key, config=config)
        acknowledge_findings(self, config=config)
        if not config.multi_az:
            acknowledge(
                self,
                "AwsSolutions-RDS3",
                because="the environment's file chose one zone (database.multi_az) for half the price; "
                "backups and point-in-time restore remain",
            )

    def _restore(self, snapshot: str) -> None:
        """Take what the snapshot holds, and say nothing of what comes with it.

        https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-rds-dbinstance.html:
        with DBSnapshotIdentifier, neither DBName, KmsKeyId, MasterUsername nor, of a snapshot that is not
        encrypted, StorageEncrypted may be given. The password that RDS manages comes after the restore, by a
        modification (ResourceModelHelper of aws-cloudformation/aws-cloudformation-resource-providers-rds).
        """
        resource = self.node.default_child
        assert isinstance(resource, rds.CfnDBInstance)  # noqa: S101
        resource.db_snapshot_identifier = snapshot
        for inherited in ("DBName", "KmsKeyId", "MasterUsername", "StorageEncrypted"):
            resource.add_property_deletion_override(inherited)
        acknowledge(
            self,
            "AwsSolutions-RDS2",
            because="a restored database is encrypted as its snapshot is; CloudFormation lets nobody say so",
        )
