"""The role a laptop's user works with: what a data scientist's role needs in AWS, and no more."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from local.deployment import Aws

NAME = "mlflow-client"
# The longest that IAM allows; `env` gives new ones at any time.
SESSION_SECONDS = 12 * 3600


def policy(*, bucket: str, prefix: str, key_arn: str) -> dict[str, Any]:
    """Read, write and mark deleted the artifacts under one prefix, with one key, through S3 only."""
    arn = f"arn:aws:s3:::{bucket}"
    under = f"{prefix}/" if prefix else ""
    listing: dict[str, Any] = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
        "Resource": arn,
    }
    if prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": [f"{under}*"]}}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject",
                    "s3:GetObjectVersion",
                    "s3:PutObject",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                    "s3:ListMultipartUploadParts",
                ],
                "Resource": f"{arn}/{under}*",
            },
            listing,
            {"Effect": "Allow", "Action": "s3:GetBucketLocation", "Resource": arn},
            {
                "Effect": "Allow",
                "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
                "Resource": key_arn,
                "Condition": {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com"}},
            },
        ],
    }


def create(aws: Aws, *, bucket: str, prefix: str, key_arn: str) -> str:
    """Create the role, which the account may assume; returns its ARN."""
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
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(
            RoleName=NAME, AssumeRolePolicyDocument=json.dumps(trust), MaxSessionDuration=SESSION_SECONDS
        )
    iam.put_role_policy(
        RoleName=NAME,
        PolicyName="artifacts",
        PolicyDocument=json.dumps(policy(bucket=bucket, prefix=prefix, key_arn=key_arn)),
    )
    return f"arn:aws:iam::{aws.account_id}:role/{NAME}"


def assume(aws: Aws) -> Aws:
    """The same API with temporary credentials of the role."""
    issued = aws.client("sts").assume_role(
        RoleArn=f"arn:aws:iam::{aws.account_id}:role/{NAME}",
        RoleSessionName="laptop",
        DurationSeconds=SESSION_SECONDS,
    )["Credentials"]
    return Aws(
        endpoint=aws.endpoint,
        region=aws.region,
        account_id=aws.account_id,
        access_key=issued["AccessKeyId"],
        secret_key=issued["SecretAccessKey"],
        session_token=issued["SessionToken"],
    )
