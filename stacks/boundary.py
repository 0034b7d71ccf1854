"""The permissions boundary that an account demands of every role."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam


def limit_permissions(stack: cdk.Stack, policy: str | None) -> None:
    """Put the policy, named or by ARN, as a boundary on every role of the stack, the CDK's own included."""
    if policy is None:
        return
    if policy.startswith("arn:"):
        boundary = iam.ManagedPolicy.from_managed_policy_arn(stack, "PermissionsBoundary", policy)
    else:
        boundary = iam.ManagedPolicy.from_managed_policy_name(stack, "PermissionsBoundary", policy)
    iam.PermissionsBoundary.of(stack).apply(boundary)
