"""The IAM roles of the laptop's account: one for each role in MLflow, with the policy deployed for it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping

from local.parts.aws import Aws
from stacks.roles import BY_NAME

ROLES = tuple(BY_NAME)
DEFAULT = "contributor"
# The longest that IAM allows; `env` gives new ones at any time.
SESSION_SECONDS = 12 * 3600
# The longest that STS allows.
TOKEN_SECONDS = 3600


def arn(role: str, *, account_id: str) -> str:
    """The IAM role that has a role in MLflow."""
    return f"arn:aws:iam::{account_id}:role/mlflow-{role}"


def create(aws: Aws, outputs: Mapping[str, str]) -> None:
    """Create the roles, which the account may assume, each with its deployed policy and nothing else.

    `outputs` are the service stack's; they name the policies.
    """
    iam = aws.client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{aws.account_id}:root"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    for role in ROLES:
        name = arn(role, account_id=aws.account_id).rpartition("/")[2]
        with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(
                RoleName=name, AssumeRolePolicyDocument=json.dumps(trust), MaxSessionDuration=SESSION_SECONDS
            )
        iam.attach_role_policy(RoleName=name, PolicyArn=outputs[f"{BY_NAME[role].construct_id}PolicyArn"])


def assume(aws: Aws, role: str) -> Aws:
    """The same API with temporary credentials of one of the roles."""
    return aws.assume(arn(role, account_id=aws.account_id), session="laptop", seconds=SESSION_SECONDS)


def token(aws: Aws, *, audience: str) -> str:
    """A bearer token of the role whose credentials `aws` has, for an hour."""
    answer = aws.client("sts").get_web_identity_token(
        Audience=[audience], SigningAlgorithm="RS256", DurationSeconds=TOKEN_SECONDS
    )
    return str(answer["WebIdentityToken"])
