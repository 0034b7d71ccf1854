"""The issuer of the tokens by which programs prove their IAM role."""

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.custom_resource import CustomResourceRunner
from stacks.identity_config import IdentityConfig

HANDLER = Path(__file__).parent / "federation_handler" / "index.py"
LOG_DAYS = 30


class TokenFederation(Construct):
    """IAM outbound web identity federation, turned on for the account, and its issuer.

    Nothing is made where the file names the issuer: an administrator has turned it on. Otherwise it is turned
    on once, left alone if it is on, and never turned off, not even when the stack is deleted: it is a switch
    for the whole account. CloudFormation has no type for it.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, log_key: kms.IKey, config: IdentityConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self.issuer = config.token_issuer or self._turned_on(log_key)

    def _turned_on(self, log_key: kms.IKey) -> str:
        runner = CustomResourceRunner(
            self,
            "Function",
            handler=HANDLER,
            description="Turns on outbound web identity federation for MLflow on AWS",
            timeout=cdk.Duration.minutes(3),
            allow=[
                iam.PolicyStatement(
                    actions=[
                        "iam:EnableOutboundWebIdentityFederation",
                        "iam:GetOutboundWebIdentityFederationInfo",
                    ],
                    resources=["*"],
                )
            ],
            log_key=log_key,
            log_days=LOG_DAYS,
        )
        acknowledge_resource(
            runner.execution_role,
            "*",
            because="the federation is a switch of the account; IAM names no resource for it",
        )
        enabled = runner.resource("Enabled", resource_type="Custom::OutboundWebIdentityFederation")
        # IAM refuses the call until the policy is attached.
        enabled.node.add_dependency(runner.execution_role)
        return enabled.get_att_string("IssuerUrl")
