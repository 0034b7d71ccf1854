"""The RDS instance behind the database."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.config import DatabaseConfig
from stacks.foundation.database_settings import (
    acknowledge_findings,
    create_log_groups,
    instance_properties,
    postgresql_parameters,
)
from stacks.foundation.read_replica import ReadReplica


class PostgresInstance(rds.DatabaseInstance):
    """PostgreSQL on RDS, with its parameter group and, if configured, a read replica beside it in `scope`."""

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
        parameters = rds.ParameterGroup(
            scope,
            "Parameters",
            engine=engine,
            description="MLflow on AWS",
            parameters=postgresql_parameters(config),
        )
        # Named, so that its log groups can exist before RDS makes its own, and so that CloudFormation cannot
        # replace the database with an empty one.
        identifier = f"{cdk.Stack.of(scope).stack_name}-database".lower()
        super().__init__(
            scope,
            construct_id,
            instance_identifier=identifier,
            engine=engine,
            # Which major version runs is the file's word; RDS refuses another one without this.
            allow_major_version_upgrade=True,
            instance_type=ec2.InstanceType(config.instance_class),
            vpc=vpc,
            security_groups=[security_group],
            parameter_group=parameters,
            database_name=database_name,
            credentials=rds.Credentials.from_username(administrator, encryption_key=key),
            manage_master_user_password=True,
            storage_encryption_key=key,
            allocated_storage=config.storage_gib,
            backup_retention=cdk.Duration.days(config.backup_days),
            preferred_backup_window=config.backup_window,
            delete_automated_backups=False,
            multi_az=config.multi_az,
            removal_policy=cdk.RemovalPolicy.SNAPSHOT,
            **instance_properties(config, key=key),
        )
        self.endpoint = self.instance_endpoint
        create_log_groups(self, identifier, log_key=log_key, config=config)
        acknowledge_findings(self, config=config)
        if not config.multi_az:
            acknowledge(
                self,
                "AwsSolutions-RDS3",
                because="the environment's file chose one zone (database.multi_az) for half the price; "
                "backups and point-in-time restore remain",
            )
        if config.read_replica:
            ReadReplica(
                scope,
                "ReadReplica",
                source=self,
                identifier=f"{identifier}-replica",
                vpc=vpc,
                security_group=security_group,
                parameters=parameters,
                key=key,
                log_key=log_key,
                config=config,
            )
