"""The issuer of the tokens by which programs prove their IAM role."""

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.operational_log import OperationalLog

HANDLER = Path(__file__).parent / "federation_handler" / "index.py"
TIMEOUT = cdk.Duration.minutes(3)
LOG_DAYS = 30


class TokenFederation(Construct):
    """IAM outbound web identity federation, turned on for the account, and its issuer.

    It is a switch of the whole account: it is turned on once, left alone if it is on, and never turned off,
    not even when the stack is deleted. CloudFormation has no type for it.
    """

    def __init__(self, scope: Construct, construct_id: str, *, log_key: kms.IKey) -> None:
        super().__init__(scope, construct_id)
        log = OperationalLog(self, "Log", key=log_key, days=LOG_DAYS)
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        role.add_to_policy(
            iam.PolicyStatement(
                actions=[
                    "iam:EnableOutboundWebIdentityFederation",
                    "iam:GetOutboundWebIdentityFederationInfo",
                ],
                resources=["*"],
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[log.log_group_arn]
            )
        )
        acknowledge_resource(
            role, "*", because="the federation is a switch of the account; IAM names no resource for it"
        )
        function = lambda_.Function(
            self,
            "Function",
            description="Turns on outbound web identity federation for MLflow on AWS",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            handler="index.handler",
            code=lambda_.Code.from_inline(HANDLER.read_text(encoding="utf-8")),
            timeout=TIMEOUT,
            memory_size=256,
            log_group=log,
            role=role,
        )
        enabled = cdk.CustomResource(
            self,
            "Enabled",
            resource_type="Custom::OutboundWebIdentityFederation",
            service_token=function.function_arn,
            service_timeout=TIMEOUT,
        )
        # Asked before its policy is attached, IAM would refuse.
        enabled.node.add_dependency(role)
        self.issuer = enabled.get_att_string("IssuerUrl")
