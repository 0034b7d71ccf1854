"""Accepted findings of the security rules: one at a time, beside the resource, each with a reason."""

from typing import Any

import aws_cdk as cdk
from constructs import IConstruct


def acknowledge(construct: IConstruct, rule: str, *, because: str) -> None:
    """Accept one finding, such as `AwsSolutions-RDS3`, on one construct."""
    cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=rule, reason=because))


def acknowledge_resource(construct: IConstruct, arn: str, *, because: str) -> None:
    """Accept a wildcard in one resource ARN of the policy on this construct, and no other."""
    reported = _as_reported(cdk.Stack.of(construct).resolve(arn))
    acknowledge(construct, f"AwsSolutions-IAM5[Resource::{reported}]", because=because)


def _as_reported(value: Any) -> str:
    """Return an ARN the way the rules name it in a finding: `arn:<AWS::Partition>:s3:::<Bucket>/*`."""
    if isinstance(value, str):
        return value
    function, argument = next(iter(value.items()))
    if function == "Fn::Join":
        separator, parts = argument
        return str(separator).join(map(_as_reported, parts))
    if function == "Fn::ImportValue":
        return str(argument)
    return f"<{'.'.join(argument) if isinstance(argument, list) else argument}>"
