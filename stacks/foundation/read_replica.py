"""A copy of the database, for reading."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.config import DatabaseConfig
from stacks.foundation.database_settings import acknowledge_findings, create_log_groups, instance_properties

FINDINGS = {
    "AwsSolutions-RDS2": "a replica takes its encryption and key from its source; RDS refuses to be told",
    "AwsSolutions-RDS3": "a replica is a second copy already, and nothing that writes depends on it",
    "AwsSolutions-RDS11": "its port is its source's; the rule misses an engine, which a replica cannot name",
    "AwsSolutions-RDS13": "what a replica holds is in the backups of its source",
}


class ReadReplica(Construct):
    """A replica as closed and as encrypted as its source. It may lag behind, and is not a backup."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        source: rds.DatabaseInstance,
        identifier: str,
        vpc: ec2.IVpc,
        security_group: ec2.ISecurityGroup,
        parameters: rds.IParameterGroup,
        key: kms.IKey,
        log_key: kms.IKey,
        config: DatabaseConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        instance = rds.DatabaseInstanceReadReplica(
            self,
            "Instance",
            instance_identifier=identifier,
            source_database_instance=source,
            instance_type=ec2.InstanceType(config.instance_class),
            vpc=vpc,
            security_groups=[security_group],
            parameter_group=parameters,
            # What it holds is in the snapshot of its source.
            removal_policy=cdk.RemovalPolicy.DESTROY,
            **instance_properties(config, key=key),
        )
        create_log_groups(instance, identifier, log_key=log_key, config=config)
        for rule, reason in FINDINGS.items():
            acknowledge(instance, rule, because=reason)
        acknowledge_findings(instance, config=config)
