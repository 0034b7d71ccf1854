"""Every setting is synthesized with another value than its default, and the templates show it.

A setting without a line in `SHOWN` fails `test_every_setting_is_synthesized`: add the line, and the setting
to one of `VARIANTS`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.stacks.conftest import CERTIFICATE, EXISTING_VPC, GITHUB_PROVIDER, IMAGE
from tests.stacks.schema import settings
from tests.stacks.templates import Assembly

Observe = Callable[[Assembly], Any]

KEY = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-00000000000"
SNAPSHOT = "arn:aws:rds:eu-central-1:111122223333:cluster-snapshot:rds:kept-2026-11-28"
ISSUER = "https://0123456789ab-cdef-0123-4567-89abcdef0123.tokens.sts.global.api.aws"
SIGN_IN_CERTIFICATE = "arn:aws:acm:us-east-1:111122223333:certificate/login"
OWN_ISSUER = "https://aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee.tokens.sts.global.api.aws"
SECRET = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:registry-a1B2c3"
FEDERATION = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-north-1.amazonaws.com/id/A1"
TOPIC = "arn:aws:sns:eu-central-1:210987654321:models"
CLUSTER = "arn:aws:eks:eu-central-1:111122223333:cluster/ml"
TENANT, TEAM = f"{0:08x}-0000-0000-0000-000000000001", f"{0:08x}-0000-0000-0000-000000000002"
ROLE_NAMES = ("auditor", "viewer", "contributor", "approver", "admin")

# Few, since each takes a second: what goes together stands together.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "all made": {
        "account": "210987654321",
        "region": "eu-central-1",
        "termination_protection": False,
        "tags": {"cost-centre": "ml"},
        "permissions_boundary": "Limits",
        "network": {
            "cidr": "10.99.0.0/16",
            "zones": 3,
            "zone_names": ["eu-central-1a", "eu-central-1b", "eu-central-1c"],
            "nat": "gateway",
            "nat_count": 2,
            "flow_log_days": 60,
            "transit_gateway_id": "tgw-1",
            "routed_cidrs": ["10.7.0.0/16"],
        },
        "database": {
            "engine_version": "17",
            "instance_class": "m7g.large",
            "max_connections": 700,
            "storage_gib": 50,
            "max_storage_gib": 300,
            "multi_az": True,
            "deletion_protection": False,
            "backup_days": 14,
            "backup_window": "04:00-05:00",
            "maintenance_window": "mon:06:00-mon:07:00",
            "port": 6000,
            "log_days": 60,
            "insights": "advanced",
            "monitoring_seconds": 30,
        },
        "artifacts": {
            "prefix": "team/models",
            "noncurrent_days": 33,
            "access_log_days": 44,
            "request_metrics": True,
            "break_glass_role_arn": "arn:aws:iam::111122223333:role/break-glass",
            "seal_at": "promotion",
            "object_lock": {"mode": "compliance", "years": 12},
            "sealed_replica": {
                "bucket_arn": "arn:aws:s3:::replicas",
                "key_arn": f"{KEY}4",
                "account": "444455556666",
            },
        },
        "cost": {"emails": ["a@example.com", "b@example.com"], "monthly_budget_usd": 321, "anomaly_usd": 21},
        "backup": {
            "days": 200,
            "hour": 7,
            "artifacts": True,
            "lock": {"mode": "compliance", "min_days": 14, "max_days": 300, "grace_days": 9},
            "recovery": {"region": "eu-west-1", "days": 60, "replicate": True},
        },
        "canary": {"minutes": 20},
        "cleanup": {"deleted_days": 45},
        "events": {
            "topics": [{"arn": f"{TOPIC}-told", "types": ["Import Finished"], "format": "chat"}],
            "github": [
                {"repository": "a/dispatched", "token_secret_name": "mlflow/gh", "types": ["Access Refused"]}
            ],
        },
        "waf": {
            "requests_per_minute": 777,
            "exempt_cidrs": ["9.9.9.0/25"],
            "blocked_cidrs": ["9.9.9.128/25"],
            "anonymous": "block",
            "bot_control": True,
            "logged": "counted",
        },
        "server": {
            "architecture": "x86_64",
            "build": "local",
            "base_image": "registry.example.com/python:3.13",
            "cpu": 1024,
            "memory_mib": 4096,
            "workers": 2,
            "database_connections": 30,
            "min_tasks": 2,
            "max_tasks": 5,
            "migration_hours": 7,
            "cpu_target_percent": 70,
            "requests_per_task": 600,
            "spot": False,
            "fast_path": False,
            "ended_runs": "anyone",
            "requests_in_flight": 321,
            "requests_per_minute": 4321,
            "container_insights": "enhanced",
            "log_days": 90,
            "audit_log_days": 3653,
        },
        "ingress": {
            "domain": "mlflow.company.org",
            "hosted_zone_id": "Z0123456789ABC",
            "hosted_zone_name": "company.org",
            "internet_facing": True,
            "allowed_cidrs": ["9.9.9.0/24"],
            "idle_timeout_seconds": 300,
            "deletion_protection": True,
        },
        "monitoring": {
            "emails": ["oncall@company.org"],
            "pager_secret_name": "mlflow/pager",
            "slack": {"workspace_id": "T0123", "channel_id": "C4567"},
            "teams": {"tenant_id": TENANT, "team_id": TEAM, "channel_id": "19%3Ac%40thread.tacv2"},
            "runbook_url": "https://wiki.company.org/runbook",
            "dashboard": True,
            "slow_seconds": 3.5,
        },
        "identity": {
            "session_hours": 10,
            "mfa": "required",
            "plan": "essentials",
            "domain_prefix": "mlflow-company",
            "roles": {
                role: {
                    "iam_roles": [f"arn:aws:iam::210987654321:role/{role}"],
                    "groups": [f"{role}-board"],
                    "people": [f"{role}@company.org"],
                }
                for role in ROLE_NAMES
            },
            "saml": {
                "name": "Company",
                "metadata_url": "https://idp.company.org/metadata",
                "email_attribute": "mail",
                "everyone": "viewer",
            },
            "oidc": {
                "name": "Partner",
                "issuer": "https://login.partner.org",
                "client_id": "mlflow-client",
                "client_secret_name": "mlflow/partner",
                "everyone": "contributor",
            },
            "trusted_issuers": [{"account": "333344445555", "issuer": ISSUER}],
            "github": [
                {"name": "train", "role": "contributor", "repository": "company/models", "branch": "main"}
            ],
            "eks": [
                {
                    "name": "report",
                    "role": "viewer",
                    "namespace": "ml",
                    "service_account": "reporter",
                    "oidc_provider_arn": FEDERATION,
                }
            ],
        },
    },
    "all given": {
        "canary": {"enabled": False},
        "log_key_arn": f"{KEY}1",
        "network": {"existing": EXISTING_VPC},
        "database": {"key_arn": f"{KEY}2"},
        "artifacts": {"key_arn": f"{KEY}3"},
        "server": {"image_uri": "registry.company.org/mlflow:1.0", "registry_secret_arn": SECRET},
        "ingress": {
            "certificate_arn": CERTIFICATE,
            "hosted_zone_id": None,
            "hosted_zone_name": None,
            "internet_facing": True,
            "allowed_cidrs": ["9.9.9.0/24"],
        },
        "identity": {
            "edge_jwt_check": False,
            "token_issuer": OWN_ISSUER,
            "sign_in_domain": "login.company.org",
            "sign_in_certificate_arn": SIGN_IN_CERTIFICATE,
            "github_provider_arn": GITHUB_PROVIDER,
            "github": [
                {
                    "name": "a",
                    "role": "approver",
                    "repository": "a/b",
                    "environment": "production",
                    "deploys": True,
                }
            ],
            "eks": [
                {
                    "name": "b",
                    "role": "viewer",
                    "namespace": "c",
                    "service_account": "d",
                    "cluster_arn": CLUSTER,
                }
            ],
        },
    },
    "aurora": {
        "database": {
            "engine": "aurora",
            "restore_from": SNAPSHOT,
            "instance_class": "serverless",
            "multi_az": None,
            "readers": 2,
            "storage_type": "aurora-iopt1",
            "min_acu": 1,
            "max_acu": 8,
        },
    },
    "peered": {
        "network": {"peering_connection_id": "pcx-1", "routed_cidrs": ["10.7.0.0/16"]},
        "server": {"image_uri": IMAGE},
    },
}


def foundation(kind: str, *path: str | int, id_starts: str = "") -> Observe:
    return lambda assembly: _at(assembly.foundation.all(kind, id_starts=id_starts), path)


def service(kind: str, *path: str | int, id_starts: str = "") -> Observe:
    return lambda assembly: _at(assembly.service.all(kind, id_starts=id_starts), path)


def _at(found: list[Any], path: tuple[str | int, ...]) -> Any:
    value: Any = found[0] if found else None
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and len(value) > step else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
    return value


def count(kind: str) -> Observe:
    return lambda assembly: len(assembly.foundation.all(kind)) + len(assembly.service.all(kind))


def mentions(text: str) -> Observe:
    return lambda assembly: text in assembly.foundation.text + assembly.service.text


def stack(*path: str) -> Observe:
    """A property of the foundation stack as the CDK CLI sees it."""
    return lambda assembly: _at(
        [each for name, each in assembly.manifest["artifacts"].items() if name.endswith("Foundation")], path
    )


def attribute(name: str) -> Observe:
    def observe(assembly: Assembly) -> Any:
        balancer = assembly.service.one("AWS::ElasticLoadBalancingV2::LoadBalancer")
        return {each["Key"]: each["Value"] for each in balancer["LoadBalancerAttributes"]}.get(name)

    return observe


def variable(name: str) -> Observe:
    def observe(assembly: Assembly) -> Any:
        task = assembly.service.one("AWS::ECS::TaskDefinition", id_starts="Server")
        environment = task["ContainerDefinitions"][0]["Environment"]
        return {each["Name"]: each["Value"] for each in environment}.get(name)

    return observe


def retention(kind: str, id_starts: str) -> Observe:
    return lambda assembly: (
        {
            group["RetentionInDays"]
            for template in (assembly.foundation, assembly.service)
            for group in template.all("AWS::Logs::LogGroup", id_starts=id_starts)
        }
        or kind
    )


def plan(*path: str | int, of: str = "Database") -> Observe:
    return foundation("AWS::Backup::BackupPlan", *_RULE, *path, id_starts=f"Backup{of}")


def vault_lock(*path: str) -> Observe:
    return foundation("AWS::Backup::BackupVault", "LockConfiguration", *path)


def replica(*path: str) -> Observe:
    rule = ("ReplicationConfiguration", "Rules", 0, "Destination")
    return foundation("AWS::S3::Bucket", *rule, *path, id_starts="Artifacts")


def budget(*path: str | int) -> Observe:
    return service("AWS::Budgets::Budget", *path)


_RULE = ("BackupPlan", "BackupPlanRule", 0)
INSTANCE = "AWS::RDS::DBInstance"
POOL = "AWS::Cognito::UserPool"
BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"
TASK = "AWS::ECS::TaskDefinition"
PROVIDER = "AWS::Cognito::UserPoolIdentityProvider"
RULE = "AWS::ElasticLoadBalancingV2::ListenerRule"
SCALING = "AWS::ApplicationAutoScaling::ScalableTarget"
POLICY = "AWS::ApplicationAutoScaling::ScalingPolicy"
TARGET = ("TargetTrackingScalingPolicyConfiguration", "TargetValue")
DOMAIN = "AWS::Cognito::UserPoolDomain"

# What the templates show of each setting, and what that is with the value of the variant.
SHOWN: Mapping[str, tuple[Observe, Any]] = {
    "account": (stack("environment"), "aws://210987654321/eu-central-1"),
    "region": (stack("environment"), "aws://210987654321/eu-central-1"),
    "termination_protection": (
        lambda assembly: bool(stack("properties", "terminationProtection")(assembly)),
        False,
    ),
    "tags": (
        stack("properties", "tags"),
        {"cost-centre": "ml", "mlflow-on-aws": "MlflowOnAws-dev"},
    ),
    "permissions_boundary": (
        lambda assembly: {
            "PermissionsBoundary" in role
            for template in (assembly.foundation, assembly.service)
            for role in template.all("AWS::IAM::Role")
        },
        {True},
    ),
    "log_key_arn": (service("AWS::Logs::LogGroup", "KmsKeyId"), f"{KEY}1"),
    "network.cidr": (foundation("AWS::EC2::VPC", "CidrBlock"), "10.99.0.0/16"),
    "network.zones": (count("AWS::EC2::Subnet"), 9),
    "network.zone_names": (foundation("AWS::EC2::Subnet", "AvailabilityZone"), "eu-central-1a"),
    "network.nat": (count("AWS::EC2::Instance"), 0),
    "network.nat_count": (count("AWS::EC2::NatGateway"), 2),
    "network.flow_log_days": (retention("none", "NetworkFlowLog"), {60}),
    "network.transit_gateway_id": (
        foundation("AWS::EC2::TransitGatewayAttachment", "TransitGatewayId"),
        "tgw-1",
    ),
    "network.peering_connection_id": (mentions('"VpcPeeringConnectionId": "pcx-1"'), True),
    "network.routed_cidrs": (mentions('"DestinationCidrBlock": "10.7.0.0/16"'), True),
    "network.existing.vpc_id": (
        service("AWS::EC2::SecurityGroup", "VpcId"),
        EXISTING_VPC["vpc_id"],
    ),
    # Zones only pair the subnets: one of each list for each of them.
    "network.existing.availability_zones": (count("AWS::EC2::Subnet"), 0),
    "network.existing.public_subnet_ids": (service(BALANCER, "Subnets"), EXISTING_VPC["public_subnet_ids"]),
    "network.existing.private_subnet_ids": (
        service("AWS::ECS::Service", "NetworkConfiguration", "AwsvpcConfiguration", "Subnets"),
        EXISTING_VPC["private_subnet_ids"],
    ),
    "network.existing.isolated_subnet_ids": (
        foundation("AWS::RDS::DBSubnetGroup", "SubnetIds"),
        EXISTING_VPC["isolated_subnet_ids"],
    ),
    "database.engine": (count("AWS::RDS::DBCluster"), 1),
    "database.readers": (count(INSTANCE), 3),
    "database.storage_type": (foundation("AWS::RDS::DBCluster", "StorageType"), "aurora-iopt1"),
    "database.min_acu": (
        foundation("AWS::RDS::DBCluster", "ServerlessV2ScalingConfiguration", "MinCapacity"),
        1,
    ),
    "database.max_acu": (
        foundation("AWS::RDS::DBCluster", "ServerlessV2ScalingConfiguration", "MaxCapacity"),
        8,
    ),
    "database.engine_version": (foundation(INSTANCE, "EngineVersion"), "17"),
    "database.instance_class": (foundation(INSTANCE, "DBInstanceClass"), "db.m7g.large"),
    "database.key_arn": (foundation(INSTANCE, "KmsKeyId"), f"{KEY}2"),
    "database.max_connections": (
        foundation("AWS::RDS::DBParameterGroup", "Parameters", "max_connections"),
        "700",
    ),
    "database.storage_gib": (foundation(INSTANCE, "AllocatedStorage"), "50"),
    "database.max_storage_gib": (foundation(INSTANCE, "MaxAllocatedStorage"), 300),
    "database.multi_az": (foundation(INSTANCE, "MultiAZ"), True),
    "database.deletion_protection": (foundation(INSTANCE, "DeletionProtection"), False),
    "database.backup_days": (foundation(INSTANCE, "BackupRetentionPeriod"), 14),
    "database.backup_window": (foundation(INSTANCE, "PreferredBackupWindow"), "04:00-05:00"),
    "database.maintenance_window": (
        foundation(INSTANCE, "PreferredMaintenanceWindow"),
        "mon:06:00-mon:07:00",
    ),
    "database.port": (foundation(INSTANCE, "Port"), "6000"),
    "database.restore_from": (foundation("AWS::RDS::DBCluster", "SnapshotIdentifier"), SNAPSHOT),
    "database.log_days": (retention("none", "DatabaseInstancePostgresqlLog"), {60}),
    "database.insights": (foundation(INSTANCE, "DatabaseInsightsMode"), "advanced"),
    "database.monitoring_seconds": (foundation(INSTANCE, "MonitoringInterval"), 30),
    "artifacts.prefix": (mentions("/team/models/*"), True),
    "artifacts.key_arn": (
        foundation(
            "AWS::S3::Bucket",
            "BucketEncryption",
            "ServerSideEncryptionConfiguration",
            0,
            "ServerSideEncryptionByDefault",
            "KMSMasterKeyID",
            id_starts="Artifacts",
        ),
        f"{KEY}3",
    ),
    "artifacts.noncurrent_days": (mentions('{"NoncurrentDays": 33}'), True),
    "artifacts.request_metrics": (
        foundation("AWS::S3::Bucket", "MetricsConfigurations", id_starts="Artifacts"),
        [{"Id": "EntireBucket"}],
    ),
    "artifacts.access_log_days": (mentions('"ExpirationInDays": 44'), True),
    "artifacts.break_glass_role_arn": (
        mentions('{"aws:PrincipalArn": "arn:aws:iam::111122223333:role/break-glass"}'),
        True,
    ),
    "artifacts.seal_at": (variable("MLFLOW_AWS_SEAL_AT"), "promotion"),
    "artifacts.object_lock.mode": (variable("MLFLOW_AWS_SEAL_LOCK"), "compliance:12"),
    "artifacts.object_lock.years": (variable("MLFLOW_AWS_SEAL_LOCK"), "compliance:12"),
    "artifacts.sealed_replica.bucket_arn": (replica("Bucket"), "arn:aws:s3:::replicas"),
    "artifacts.sealed_replica.key_arn": (replica("EncryptionConfiguration", "ReplicaKmsKeyID"), f"{KEY}4"),
    "artifacts.sealed_replica.account": (replica("Account"), "444455556666"),
    "backup.days": (plan("Lifecycle", "DeleteAfterDays"), 200),
    "backup.hour": (plan("ScheduleExpression"), "cron(0 7 * * ? *)"),
    "backup.artifacts": (plan("EnableContinuousBackup", of="Artifacts"), True),
    "backup.lock.mode": (lambda assembly: vault_lock("ChangeableForDays")(assembly) is not None, True),
    "backup.lock.min_days": (vault_lock("MinRetentionDays"), 14),
    "backup.lock.max_days": (vault_lock("MaxRetentionDays"), 300),
    "backup.lock.grace_days": (vault_lock("ChangeableForDays"), 9),
    "backup.recovery.region": (
        lambda assembly: (
            assembly.recovery and assembly.manifest["artifacts"]["MlflowOnAws-dev-Recovery"]["environment"]
        ),
        "aws://210987654321/eu-west-1",
    ),
    "backup.recovery.days": (plan("CopyActions", 0, "Lifecycle", "DeleteAfterDays"), 60),
    "backup.recovery.replicate": (mentions('"Id": "Everything"'), True),
    "cost.emails": (budget("NotificationsWithSubscribers", 2, "Subscribers", 1, "Address"), "b@example.com"),
    "cost.monthly_budget_usd": (budget("Budget", "BudgetLimit", "Amount"), 321),
    "cost.anomaly_usd": (mentions(r"[\"21\"]"), True),
    "canary.enabled": (mentions("client_smoke.canary"), False),
    "canary.minutes": (mentions('"ScheduleExpression": "rate(20 minutes)"'), True),
    "cleanup.deleted_days": (mentions(r"[\"gc\",\"--days\",\"45\"]"), True),
    "events.topics.*.arn": (mentions(f"{TOPIC}-told"), True),
    "events.topics.*.types": (mentions('"detail-type": ["Import Finished"]'), True),
    "events.topics.*.format": (mentions(r"\"source\":\"custom\""), True),
    "events.github.*.repository": (mentions("repos/a/dispatched/dispatches"), True),
    "events.github.*.token_secret_name": (mentions("secretsmanager:mlflow/gh:"), True),
    "events.github.*.types": (mentions('"detail-type": ["Access Refused"]'), True),
    "waf.requests_per_minute": (mentions('"RateBasedStatement": {"Limit": 777,'), True),
    "waf.exempt_cidrs": (
        service("AWS::WAFv2::IPSet", "Addresses", id_starts="FirewallExempt"),
        ["9.9.9.0/25"],
    ),
    "waf.blocked_cidrs": (
        service("AWS::WAFv2::IPSet", "Addresses", id_starts="FirewallBlocked"),
        ["9.9.9.128/25"],
    ),
    "waf.anonymous": (mentions("AWSManagedRulesAnonymousIpList"), True),
    "waf.bot_control": (mentions('"InspectionLevel": "COMMON"'), True),
    "waf.logged": (mentions("EXCLUDED_AS_COUNT"), True),
    "server.architecture": (service(TASK, "RuntimePlatform", "CpuArchitecture"), "X86_64"),
    "server.build": (count("AWS::CodeBuild::Project"), 0),
    "server.image_uri": (
        service(TASK, "ContainerDefinitions", 0, "Image"),
        "registry.company.org/mlflow:1.0",
    ),
    "server.registry_secret_arn": (
        service(TASK, "ContainerDefinitions", 0, "RepositoryCredentials", "CredentialsParameter"),
        SECRET,
    ),
    "server.base_image": (
        lambda assembly: assembly.build_arguments().get("BASE_IMAGE"),
        "registry.example.com/python:3.13",
    ),
    "server.cpu": (service(TASK, "Cpu"), "1024"),
    "server.memory_mib": (service(TASK, "Memory"), "4096"),
    "server.workers": (variable("MLFLOW_AWS_WORKERS"), "2"),
    "server.database_connections": (variable("MLFLOW_AWS_DATABASE_MAX_CONNECTIONS"), "30"),
    "server.min_tasks": (service(SCALING, "MinCapacity"), 2),
    "server.max_tasks": (service(SCALING, "MaxCapacity"), 5),
    "server.migration_hours": (service("AWS::CloudFormation::WaitCondition", "Timeout"), str(7 * 3600)),
    "server.cpu_target_percent": (mentions('"TargetValue": 70}'), True),
    "server.requests_per_task": (mentions('"TargetValue": 600}'), True),
    "server.spot": (
        service("AWS::ECS::Service", "CapacityProviderStrategy", 0, "CapacityProvider"),
        "FARGATE",
    ),
    "server.fast_path": (variable("MLFLOW_AWS_FAST_PATH"), "off"),
    "server.ended_runs": (variable("MLFLOW_AWS_ENDED_RUNS"), "anyone"),
    "server.requests_in_flight": (variable("MLFLOW_AWS_REQUESTS_IN_FLIGHT"), "321"),
    "server.requests_per_minute": (variable("MLFLOW_AWS_REQUESTS_PER_MINUTE"), "4321"),
    "server.container_insights": (service("AWS::ECS::Cluster", "ClusterSettings", 0, "Value"), "enhanced"),
    "server.log_days": (retention("none", "ClusterLog"), {90}),
    "server.audit_log_days": (retention("none", "AuditLog"), {3653}),
    "ingress.domain": (variable("MLFLOW_AWS_PUBLIC_URL"), "https://mlflow.company.org"),
    "ingress.hosted_zone_id": (service("AWS::Route53::RecordSet", "HostedZoneId"), "Z0123456789ABC"),
    # CloudFormation takes the zone by its id; the name decides which records it gets.
    "ingress.hosted_zone_name": (service("AWS::Route53::RecordSet", "Name"), "mlflow.company.org."),
    "ingress.certificate_arn": (
        service("AWS::ElasticLoadBalancingV2::Listener", "Certificates", 0, "CertificateArn"),
        CERTIFICATE,
    ),
    "ingress.internet_facing": (service(BALANCER, "Scheme"), "internet-facing"),
    "ingress.allowed_cidrs": (mentions('"CidrIp": "9.9.9.0/24"'), True),
    "ingress.idle_timeout_seconds": (
        lambda assembly: (
            attribute("idle_timeout.timeout_seconds")(assembly),
            variable("MLFLOW_AWS_KEEP_ALIVE_SECONDS")(assembly),
        ),
        ("300", "315"),
    ),
    "ingress.deletion_protection": (attribute("deletion_protection.enabled"), "true"),
    "monitoring.emails": (mentions('"Endpoint": "oncall@company.org"'), True),
    "monitoring.pager_secret_name": (mentions("{{resolve:secretsmanager:mlflow/pager:SecretString"), True),
    "monitoring.slack.workspace_id": (mentions('"SlackWorkspaceId": "T0123"'), True),
    "monitoring.slack.channel_id": (mentions('"SlackChannelId": "C4567"'), True),
    "monitoring.teams.tenant_id": (mentions(f'"TeamsTenantId": "{TENANT}"'), True),
    "monitoring.teams.team_id": (mentions(f'"TeamId": "{TEAM}"'), True),
    "monitoring.teams.channel_id": (mentions('"TeamsChannelId": "19%3Ac%40thread.tacv2"'), True),
    "monitoring.runbook_url": (mentions("https://wiki.company.org/runbook#nohealthyhosts"), True),
    "monitoring.dashboard": (count("AWS::CloudWatch::Dashboard"), 1),
    "monitoring.slow_seconds": (
        service("AWS::CloudWatch::Alarm", "Threshold", id_starts="MonitoringAlarmsSlowAnswers"),
        3.5,
    ),
    "identity.session_hours": (
        service("AWS::Cognito::UserPoolClient", "RefreshTokenValidity"),
        10 * 60,
    ),
    "identity.edge_jwt_check": (mentions("JwtValidationConfig"), False),
    "identity.mfa": (foundation(POOL, "MfaConfiguration"), "ON"),
    "identity.plan": (foundation(POOL, "UserPoolTier"), "ESSENTIALS"),
    "identity.domain_prefix": (foundation(DOMAIN, "Domain"), "mlflow-company"),
    "identity.sign_in_domain": (
        lambda assembly: (
            foundation(DOMAIN, "Domain")(assembly),
            "login.company.org CNAME" in str(assembly.service.outputs.get("DnsRecordsToCreate")),
        ),
        ("login.company.org", True),
    ),
    "identity.sign_in_certificate_arn": (
        foundation(DOMAIN, "CustomDomainConfig", "CertificateArn"),
        SIGN_IN_CERTIFICATE,
    ),
    "identity.github_provider_arn": (mentions(GITHUB_PROVIDER), True),
    "identity.token_issuer": (mentions(OWN_ISSUER), True),
    "identity.trusted_issuers.*.account": (mentions("333344445555"), True),
    "identity.trusted_issuers.*.issuer": (mentions(ISSUER), True),
    **{
        f"identity.roles.{role}.{key}": (mentions(text), True)
        for role in ROLE_NAMES
        for key, text in (
            ("iam_roles", f"arn:aws:iam::210987654321:role/{role}"),
            ("groups", f"{role}-board"),
            ("people", f'"Username": "{role}-at-company.org"'),
        )
    },
    "identity.saml.name": (mentions('"ProviderName": "Company"'), True),
    "identity.saml.metadata_url": (mentions("https://idp.company.org/metadata"), True),
    "identity.saml.email_attribute": (mentions('"email": "mail"'), True),
    "identity.saml.everyone": (mentions("_Company"), True),
    "identity.oidc.name": (mentions('"ProviderName": "Partner"'), True),
    "identity.oidc.issuer": (mentions('"oidc_issuer": "https://login.partner.org"'), True),
    "identity.oidc.client_id": (mentions('"client_id": "mlflow-client"'), True),
    "identity.oidc.client_secret_name": (mentions("secretsmanager:mlflow/partner"), True),
    "identity.oidc.everyone": (mentions("_Partner"), True),
    "identity.github.*.name": (mentions('"RoleName": "train"'), True),
    "identity.github.*.role": (mentions("Works with MLflow as contributor"), True),
    "identity.github.*.repository": (mentions("repo:company/models:"), True),
    "identity.github.*.branch": (mentions(":ref:refs/heads/main"), True),
    "identity.github.*.environment": (mentions("repo:a/b:environment:production"), True),
    "identity.github.*.deploys": (mentions(":role/cdk-hnb659fds-deploy-role-"), True),
    "identity.eks.*.name": (mentions('"RoleName": "report"'), True),
    "identity.eks.*.role": (mentions("Works with MLflow as viewer"), True),
    "identity.eks.*.namespace": (mentions("system:serviceaccount:ml:"), True),
    "identity.eks.*.service_account": (mentions(":reporter"), True),
    "identity.eks.*.oidc_provider_arn": (mentions(FEDERATION), True),
    "identity.eks.*.cluster_arn": (mentions(CLUSTER), True),
}


@pytest.fixture(scope="module")
def synthesized(build: Callable[..., Assembly]) -> Callable[[str], Assembly]:
    """Synthesize a variant, once."""
    made: dict[str, Assembly] = {}

    def synthesized(variant: str) -> Assembly:
        if variant not in made:
            made[variant] = build("dev", VARIANTS[variant])
        return made[variant]

    return synthesized


def holds(changes: Any, setting: str) -> bool:
    for key in setting.split("."):
        changes = changes[0] if key == "*" and isinstance(changes, list) else changes
        if key == "*":
            continue
        if not isinstance(changes, Mapping) or changes.get(key) is None:
            return False
        changes = changes[key]
    return True


def test_every_setting_is_synthesized() -> None:
    assert set(SHOWN) == set(settings()), "a new setting needs a line in SHOWN and a value in VARIANTS"


@pytest.mark.parametrize("setting", SHOWN)
def test_the_templates_show_the_value_of(
    setting: str, dev: Assembly, synthesized: Callable[[str], Assembly]
) -> None:
    observe, expected = SHOWN[setting]
    variant = next(name for name, changes in VARIANTS.items() if holds(changes, setting))
    assert observe(synthesized(variant)) == expected
    assert observe(dev) != expected, "this would pass without the setting"


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_variant_leaves_a_finding_of_the_security_rules(
    variant: str, synthesized: Callable[[str], Assembly]
) -> None:
    assert synthesized(variant).findings == ()
