"""The key of what MLflow keeps encrypted in its database."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.foundation.database import Database


class WebhookKeySecret(Construct):
    """What encrypts the signing secrets of webhooks, which only the server's role may read.

    It is made by Secrets Manager, and kept with the database: without it those secrets are lost.
    """

    def __init__(self, scope: Construct, construct_id: str, *, database: Database, reader: iam.IRole) -> None:
        super().__init__(scope, construct_id)
        secret = secretsmanager.CfnSecret(
            self,
            "Secret",
            description="Encrypts the secrets of MLflow's webhooks",
            kms_key_id=database.key.key_arn,
            generate_secret_string=secretsmanager.CfnSecret.GenerateSecretStringProperty(
                password_length=64, exclude_punctuation=True
            ),
        )
        secret.apply_removal_policy(cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
        acknowledge(
            secret,
            "AwsSolutions-SMG4",
            because="rotated by an operator, who then sets the webhooks' secrets again: docs/events.md",
        )
        self.arn = secret.ref
        reader.add_to_principal_policy(
            iam.PolicyStatement(actions=["secretsmanager:GetSecretValue"], resources=[self.arn])
        )
        region = cdk.Stack.of(self).region
        reader.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["kms:Decrypt"],
                resources=[database.key.key_arn],
                conditions={
                    "StringEquals": {
                        "kms:ViaService": f"secretsmanager.{region}.amazonaws.com",
                        "kms:EncryptionContext:SecretARN": self.arn,
                    }
                },
            )
        )
