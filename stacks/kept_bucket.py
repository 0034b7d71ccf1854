"""A bucket whose objects are evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.config import ArtifactsConfig


class KeptBucket(s3.Bucket):
    """Private, encrypted with one key, versioned, and never destroyed.

    Only the break-glass role may delete object versions, and nobody if there is none. What is overwritten or
    deleted stays recoverable for a configured time.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, key: kms.IKey, config: ArtifactsConfig, **more: Any
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=key,
            bucket_key_enabled=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            object_lock_enabled=True if config.object_lock else None,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="Tidy",
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
                    noncurrent_version_expiration=cdk.Duration.days(config.noncurrent_days),
                    expired_object_delete_marker=True,
                ),
            ],
            removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
            **more,
        )
        role = config.break_glass_role_arn
        unless = {"ArnNotEquals": {"aws:PrincipalArn": role}} if role else {}
        self.deny("OnlyBreakGlassDeletesVersions", "s3:DeleteObjectVersion", conditions=unless)

    def deny(
        self,
        sid: str,
        *actions: str,
        not_actions: Sequence[str] = (),
        resource: str | None = None,
        conditions: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Deny everybody these actions, or all others, on these objects, or on all of them."""
        self.add_to_resource_policy(
            iam.PolicyStatement(
                sid=sid,
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=list(actions) or None,
                not_actions=list(not_actions) or None,
                resources=[resource or self.arn_for_objects("*")],
                conditions=conditions,
            )
        )
