"""The keys that encrypt what is kept: new ones, or the account's own."""

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from constructs import Construct


def encryption_key(scope: Construct, construct_id: str, *, arn: str | None, description: str) -> kms.IKey:
    """Return the key of this ARN as it is; without one, a new key that rotates and is kept."""
    if arn is not None:
        return kms.Key.from_key_arn(scope, construct_id, arn)
    return kms.Key(
        scope,
        construct_id,
        description=description,
        enable_key_rotation=True,
        removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
    )
