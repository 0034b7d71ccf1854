"""What an account has only once, whoever makes it."""

from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.custom_resource import CustomResourceRunner
from stacks.identity_config import IdentityConfig

HANDLER = Path(__file__).parent / "account_handler" / "index.py"
LOG_DAYS = 365
# The roles by which AWS's services act in an account. At its first use a service makes its own, and may fail.
SERVICE_LINKED_ROLES = {
    "ecs.amazonaws.com": "AWSServiceRoleForECS",
    "rds.amazonaws.com": "AWSServiceRoleForRDS",
    "elasticloadbalancing.amazonaws.com": "AWSServiceRoleForElasticLoadBalancing",
    "ecs.application-autoscaling.amazonaws.com": "AWSServiceRoleForApplicationAutoScaling_ECSService",
}


class AccountSwitches(Construct):
    """Looked for, made where missing, and left there, also when the stack is deleted.

    Outbound web identity federation with its `issuer`, unless the file names one; the service-linked roles;
    an OIDC provider for whoever asks. CloudFormation has no type for the first, and fails where others exist.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, log_key: kms.IKey, config: IdentityConfig
    ) -> None:
        super().__init__(scope, construct_id)
        roles = [
            _arn(self, "role", f"aws-service-role/{service}/{name}")
            for service, name in SERVICE_LINKED_ROLES.items()
        ]
        self._runner = CustomResourceRunner(
            self,
            "Function",
            handler=HANDLER,
            description="Gives the account what MLflow on AWS needs in it once",
            timeout=cdk.Duration.minutes(5),
            allow=[
                iam.PolicyStatement(actions=["iam:CreateServiceLinkedRole", "iam:GetRole"], resources=roles)
            ],
            log_key=log_key,
            log_days=LOG_DAYS,
        )
        self.issuer = config.token_issuer or self._federation()
        self._switch("ServiceLinkedRoles", "Custom::ServiceLinkedRoles", {"Roles": SERVICE_LINKED_ROLES})

    def oidc_provider(self, construct_id: str, *, host: str, audience: str) -> str:
        """Return the ARN of the account's OIDC provider for `https://` and the host, once it is there."""
        arn = _arn(self, "oidc-provider", host)
        self._runner.execution_role.add_to_policy(
            iam.PolicyStatement(
                actions=[
                    "iam:AddClientIDToOpenIDConnectProvider",
                    "iam:CreateOpenIDConnectProvider",
                    "iam:GetOpenIDConnectProvider",
                ],
                resources=[arn],
            )
        )
        properties = {"Arn": arn, "Url": f"https://{host}", "ClientId": audience}
        return self._switch(construct_id, "Custom::OidcProvider", properties).get_att_string("Arn")

    def _federation(self) -> str:
        role = self._runner.execution_role
        role.add_to_policy(
            iam.PolicyStatement(
                actions=[
                    "iam:EnableOutboundWebIdentityFederation",
                    "iam:GetOutboundWebIdentityFederationInfo",
                ],
                resources=["*"],
            )
        )
        acknowledge_resource(
            role, "*", because="the federation is a switch of the account; IAM names no resource for it"
        )
        enabled = self._switch("Enabled", "Custom::OutboundWebIdentityFederation", {})
        return enabled.get_att_string("IssuerUrl")

    def _switch(
        self, construct_id: str, resource_type: str, properties: Mapping[str, object]
    ) -> cdk.CustomResource:
        switch = self._runner.resource(construct_id, resource_type=resource_type, properties=properties)
        # IAM refuses the call until the policy is attached.
        switch.node.add_dependency(self._runner.execution_role)
        return switch


def _arn(scope: Construct, resource: str, name: str) -> str:
    return cdk.Stack.of(scope).format_arn(service="iam", region="", resource=resource, resource_name=name)
