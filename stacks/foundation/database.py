"""The database of runs, models and their lineage."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.config import DatabaseConfig
from stacks.operational_log import OperationalLog

ISOLATED = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED)
INSIGHTS = {"standard": rds.DatabaseInsightsMode.STANDARD, "advanced": rds.DatabaseInsightsMode.ADVANCED}
# Each mode of Database Insights has one retention.
INSIGHTS_DAYS = {
    "standard": rds.PerformanceInsightRetention.DEFAULT,
    "advanced": rds.PerformanceInsightRetention.MONTHS_15,
}


class Database(Construct):
    """PostgreSQL that accepts only TLS connections, only from security groups it was told of.

    Users sign in with IAM tokens. The administrator's password is made, kept and rotated by RDS; only a
    principal given `grant_administer` may read it. Deleting the database leaves a snapshot.
    """

    name = "mlflow"

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
            self, "Parameters", engine=engine, description="MLflow on AWS", parameters=_parameters(config)
        )
        # Named, so that its log groups can be encrypted and given an end before RDS creates them. The name
        # also makes CloudFormation refuse to replace the database by an empty one.
        self._identifier = f"{cdk.Stack.of(self).stack_name}-database".lower()
        self.instance = rds.DatabaseInstance(
            self,
            "Instance",
            instance_identifier=self._identifier,
            engine=engine,
            vpc=vpc,
            vpc_subnets=ISOLATED,
            security_groups=[security_group],
            port=config.port,
            database_name=self.name,
            credentials=rds.Credentials.from_username("mlflow_administrator", encryption_key=self._key),
            manage_master_user_password=True,
            storage_encryption_key=self._key,
            allocated_storage=config.storage_gib,
            backup_retention=cdk.Duration.days(config.backup_days),
            preferred_backup_window=config.backup_window,
            delete_automated_backups=False,
            multi_az=config.multi_az,
            parameter_group=parameters,
            removal_policy=cdk.RemovalPolicy.SNAPSHOT,
            **self._properties(config),
        )
        if config.monitoring_seconds:
            acknowledge(
                self.instance,
                "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
                "AmazonRDSEnhancedMonitoringRole]",
                because="AWS keeps this policy in step with what enhanced monitoring writes, which is its logs only",
            )
        self._keep_logs(self.instance, self._identifier, log_key=log_key, config=config)
        if not config.multi_az:
            acknowledge(
                self.instance,
                "AwsSolutions-RDS3",
                because="this environment's file chose one zone (database.multi_az) for half the price; "
                "backups and point-in-time restore remain",
            )
        if config.read_replica:
            self._add_read_replica(security_group, parameters, vpc=vpc, log_key=log_key, config=config)

    def grant_connect(self, grantee: iam.IGrantable, *, user: str) -> None:
        """Let the grantee sign in as this one database user, with an IAM token."""
        self.instance.grant_connect(grantee, user)

    def grant_administer(self, grantee: iam.IGrantable) -> None:
        """Let the grantee read the administrator's password, which RDS rotates."""
        principal = grantee.grant_principal
        principal.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["secretsmanager:GetSecretValue"], resources=[self.administrator_secret_arn]
            )
        )
        principal.add_to_principal_policy(
            iam.PolicyStatement(actions=["kms:Decrypt"], resources=[self._key.key_arn])
        )

    @property
    def administrator_secret_arn(self) -> str:
        """The secret that RDS manages: JSON with `username` and `password`."""
        assert self.instance.secret is not None  # noqa: S101
        return self.instance.secret.secret_arn

    def _properties(self, config: DatabaseConfig) -> dict[str, object]:
        """Return what the instance and its replica have in common."""
        insights = config.insights != "off"
        return {
            "instance_type": ec2.InstanceType(config.instance_class),
            "storage_type": rds.StorageType.GP3,
            "max_allocated_storage": config.max_storage_gib,
            "iam_authentication": True,
            "publicly_accessible": False,
            "auto_minor_version_upgrade": True,
            "copy_tags_to_snapshot": True,
            "deletion_protection": config.deletion_protection,
            "preferred_maintenance_window": config.maintenance_window,
            "ca_certificate": rds.CaCertificate.RDS_CA_RSA2048_G1,
            "cloudwatch_logs_exports": ["postgresql", "upgrade"],
            "monitoring_interval": cdk.Duration.seconds(config.monitoring_seconds),
            "enable_performance_insights": insights,
            "database_insights_mode": INSIGHTS.get(config.insights),
            "performance_insight_encryption_key": self._key if insights else None,
            "performance_insight_retention": INSIGHTS_DAYS.get(config.insights),
        }

    def _add_read_replica(
        self,
        security_group: ec2.ISecurityGroup,
        parameters: rds.IParameterGroup,
        *,
        vpc: ec2.IVpc,
        log_key: kms.IKey,
        config: DatabaseConfig,
    ) -> None:
        identifier = f"{self._identifier}-replica"
        replica = rds.DatabaseInstanceReadReplica(
            self,
            "ReadReplica",
            instance_identifier=identifier,
            source_database_instance=self.instance,
            vpc=vpc,
            vpc_subnets=ISOLATED,
            security_groups=[security_group],
            port=config.port,
            storage_encryption_key=self._key,
            parameter_group=parameters,
            # A copy: what it holds is in the instance's snapshot.
            removal_policy=cdk.RemovalPolicy.DESTROY,
            **self._properties(config),
        )
        self._keep_logs(replica, identifier, log_key=log_key, config=config)

    def _keep_logs(
        self, instance: Construct, identifier: str, *, log_key: kms.IKey, config: DatabaseConfig
    ) -> None:
        for kind in ("postgresql", "upgrade"):
            log = OperationalLog(
                instance,
                f"{kind.title()}Log",
                name=f"/aws/rds/instance/{identifier}/{kind}",
                key=log_key,
                days=config.log_days,
            )
            instance.node.default_child.node.add_dependency(log)


def _parameters(config: DatabaseConfig) -> dict[str, str]:
    return {
        "rds.force_ssl": "1",
        "max_connections": str(config.max_connections),
        "log_statement": "ddl",
        "log_min_duration_statement": "1000",
        # A client that died inside a transaction must not hold its locks until the end of days.
        "idle_in_transaction_session_timeout": "60000",
    }
