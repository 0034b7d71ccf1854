"""The database of runs, models and their lineage."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct, IDependable

from stacks.acknowledge import acknowledge_resource
from stacks.config import DatabaseConfig
from stacks.foundation.aurora_cluster import AuroraCluster
from stacks.foundation.postgres_instance import PostgresInstance
from stacks.keys import encryption_key

# The id of each is its own: one engine never becomes the other in place.
ENGINES: Mapping[str, tuple[type[PostgresInstance] | type[AuroraCluster], str]] = {
    "postgresql": (PostgresInstance, "Instance"),
    "aurora": (AuroraCluster, "Cluster"),
}


class Database(Construct):
    """PostgreSQL that accepts only TLS connections, and only from clients it was told of.

    Users sign in with IAM tokens. The administrator's password is made, kept and rotated by RDS; only a
    principal given `grant_administer` may read it. Deleting the database leaves a snapshot. What runs it is
    private: others see its endpoint and its grants.
    """

    name = "mlflow"
    # The server may change rows; only the migrator, who owns the schema, may change tables.
    server_user = "mlflow_server"
    migrator_user = "mlflow_migrator"
    # By the password that RDS keeps until the first migration, and by tokens from then on.
    administrator_user = "mlflow_administrator"

    def __init__(
        self, scope: Construct, construct_id: str, *, vpc: ec2.IVpc, log_key: kms.IKey, config: DatabaseConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self.key = encryption_key(self, "Key", arn=config.key_arn, description="Database of MLflow on AWS")
        security_group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            description="MLflow database: entered by tasks, leaves to nowhere",
            allow_all_outbound=False,
        )
        engine, engine_id = ENGINES[config.engine]
        self._engine = engine(
            self,
            engine_id,
            database_name=self.name,
            administrator=self.administrator_user,
            vpc=vpc,
            security_group=security_group,
            key=self.key,
            log_key=log_key,
            config=config,
        )
        self.endpoint = self._engine.endpoint
        # Answers with rows that may be some moments old; None where the database has no reader.
        self.reader_endpoint = self._engine.reader_endpoint
        self.dimensions: Mapping[str, str] = self._engine.dimensions
        self.port = config.port
        self.restored_from = config.restore_from

    def create_after(self, *others: IDependable) -> None:
        """Create the database only once everything of the others is there."""
        self._engine.node.add_dependency(*others)

    @property
    def arn(self) -> str:
        """The instance, or the cluster."""
        return self._engine.arn

    @property
    def administrator_secret_arn(self) -> str:
        """The secret that RDS manages: JSON with `username` and `password`."""
        assert self._engine.secret is not None  # noqa: S101
        return self._engine.secret.secret_arn

    def allow_connections_from(self, client: ec2.IConnectable) -> None:
        """Let the client's security group reach the database's port, by rules in the client's stack."""
        client.connections.allow_to(self._engine, ec2.Port.tcp(self.port), "the database")

    def grant_connect(self, grantee: iam.IGrantable, *, user: str) -> None:
        """Let the grantee sign in as this one database user, with an IAM token."""
        self._engine.grant_connect(grantee, user)

    def grant_snapshot(self, role: iam.Role, *, named: str) -> None:
        """Let the role take snapshots of this database with such names, and see them."""
        cluster = "Cluster" if isinstance(self._engine, AuroraCluster) else ""
        snapshots = cdk.Stack.of(role).format_arn(
            service="rds",
            resource="cluster-snapshot" if cluster else "snapshot",
            resource_name=named,
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=[f"rds:CreateDB{cluster}Snapshot", f"rds:DescribeDB{cluster}Snapshots"],
                resources=[self.arn, snapshots],
            )
        )
        acknowledge_resource(
            role, snapshots, because="the name of a snapshot holds the time when it is taken"
        )

    def grant_administer(self, role: iam.Role) -> None:
        """Let the role sign in as the administrator, and read the password for the first time of all."""
        self.grant_connect(role, user=self.administrator_user)
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["secretsmanager:GetSecretValue"], resources=[self.administrator_secret_arn]
            )
        )
        role.add_to_policy(iam.PolicyStatement(actions=["kms:Decrypt"], resources=[self.key.key_arn]))
