"""The database of runs, models and their lineage."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.config import DatabaseConfig
from stacks.foundation.database_settings import (
    acknowledge_findings,
    instance_properties,
    keep_logs,
    postgresql_parameters,
)
from stacks.foundation.read_replica import ReadReplica


class Database(Construct):
    """PostgreSQL that accepts only TLS connections, only from security groups it was told of.

    Users sign in with IAM tokens. The administrator's password is made, kept and rotated by RDS; only a
    principal given `grant_administer` may read it. Deleting the database leaves a snapshot.
    """

    name = "mlflow"
    # The server may change rows; only the migrator, who owns the schema, may change tables.
    server_user = "mlflow_server"
    migrator_user = "mlflow_migrator"

    def __init__(
        self, scope: Construct, construct_id: str, *, vpc: ec2.IVpc, log_key: kms.IKey, config: DatabaseConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self.port = config.port
        self._key = kms.Key(
            self,
            "Key",
            description="Database of MLflow on AWS",
            enable_key_rotation=True,
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        security_group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            description="MLflow database: entered by tasks, leaves to nowhere",
            allow_all_outbound=False,
        )
        engine = rds.DatabaseInstanceEngine.postgres(
            version=rds.PostgresEngineVersion.of(config.engine_version, config.engine_version)
        )
        parameters = rds.ParameterGroup(
            self,
            "Parameters",
            engine=engine,
            description="MLflow on AWS",
            parameters=postgresql_parameters(config),
        )
        # Named, so that its log groups can exist before RDS makes its own, and so that CloudFormation cannot
        # replace the database by an empty one.
        identifier = f"{cdk.Stack.of(self).stack_name}-database".lower()
        self.instance = rds.DatabaseInstance(
            self,
            "Instance",
            instance_identifier=identifier,
            engine=engine,
            instance_type=ec2.InstanceType(config.instance_class),
            vpc=vpc,
            security_groups=[security_group],
            parameter_group=parameters,
            database_name=self.name,
            credentials=rds.Credentials.from_username("mlflow_administrator", encryption_key=self._key),
            manage_master_user_password=True,
            storage_encryption_key=self._key,
            allocated_storage=config.storage_gib,
            backup_retention=cdk.Duration.days(config.backup_days),
            preferred_backup_window=config.backup_window,
            delete_automated_backups=False,
            multi_az=config.multi_az,
            removal_policy=cdk.RemovalPolicy.SNAPSHOT,
            **instance_properties(config, key=self._key),
        )
        keep_logs(self.instance, identifier, log_key=log_key, config=config)
        acknowledge_findings(self.instance, config=config)
        if not config.multi_az:
            acknowledge(
                self.instance,
                "AwsSolutions-RDS3",
                because="the environment's file chose one zone (database.multi_az) for half the price; "
                "backups and point-in-time restore remain",
            )
        if config.read_replica:
            ReadReplica(
                self,
                "ReadReplica",
                source=self.instance,
                identifier=f"{identifier}-replica",
                vpc=vpc,
                security_group=security_group,
                parameters=parameters,
                key=self._key,
                log_key=log_key,
                config=config,
            )

    @property
    def administrator_secret_arn(self) -> str:
        """The secret that RDS manages: JSON with `username` and `password`."""
        assert self.instance.secret is not None  # noqa: S101
        return self.instance.secret.secret_arn

    def grant_connect(self, grantee: iam.IGrantable, *, user: str) -> None:
        """Let the grantee sign in as this one database user, with an IAM token."""
        self.instance.grant_connect(grantee, user)

    def grant_administer(self, role: iam.Role) -> None:
        """Let the role read the administrator's password."""
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["secretsmanager:GetSecretValue"], resources=[self.administrator_secret_arn]
            )
        )
        role.add_to_policy(iam.PolicyStatement(actions=["kms:Decrypt"], resources=[self._key.key_arn]))
