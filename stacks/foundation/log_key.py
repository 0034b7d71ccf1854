"""The key that encrypts every log, and notifications."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct


def log_key(scope: Construct, construct_id: str, *, arn: str | None) -> kms.IKey:
    """Return the key of this ARN, whose policy must admit what `LogKey` does; without one, a new key."""
    return kms.Key.from_key_arn(scope, construct_id, arn) if arn else LogKey(scope, construct_id)


class LogKey(kms.Key):
    """A rotating key that CloudWatch Logs may use, for log groups of this account and region only.

    What publishes notifications may use it for this account's topics; conditions on the source are not
    supported for EventBridge: https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
    """

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(
            scope,
            construct_id,
            description="Logs of MLflow on AWS",
            enable_key_rotation=True,
            removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )
        stack = cdk.Stack.of(self)
        log_groups = stack.format_arn(
            service="logs",
            resource="log-group",
            resource_name="*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        self.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal(f"logs.{stack.region}.{stack.url_suffix}")],
                actions=[
                    "kms:Encrypt",
                    "kms:Decrypt",
                    "kms:ReEncrypt*",
                    "kms:GenerateDataKey*",
                    "kms:DescribeKey",
                ],
                resources=["*"],
                conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": log_groups}},
            )
        )
        topics = stack.format_arn(service="sns", resource="*")
        self.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[
                    iam.ServicePrincipal(each)
                    for each in ("cloudwatch.amazonaws.com", "events.amazonaws.com")
                ],
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                resources=["*"],
                conditions={"ArnLike": {"kms:EncryptionContext:aws:sns:topicArn": topics}},
            )
        )
