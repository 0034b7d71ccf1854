"""Who the server is in AWS."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct


def server_role(scope: Construct, construct_id: str) -> iam.Role:
    """Return the role of the server's tasks, which may do nothing yet.

    In the foundation, so that the bucket's policy names it: a new service seals as the former one did.
    """
    return iam.Role(scope, construct_id, assumed_by=tasks_of_this_account(scope))


def tasks_of_this_account(scope: Construct) -> iam.ServicePrincipal:
    """Whom the roles of tasks trust: ECS, for tasks of this account and region."""
    stack = cdk.Stack.of(scope)
    return iam.ServicePrincipal(
        "ecs-tasks.amazonaws.com",
        conditions={
            "StringEquals": {"aws:SourceAccount": stack.account},
            "ArnLike": {"aws:SourceArn": stack.format_arn(service="ecs", resource="*")},
        },
    )
