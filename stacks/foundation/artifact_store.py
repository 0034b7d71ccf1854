"""The bucket of models and run artifacts."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.config import ArtifactsConfig
from stacks.keys import encryption_key


class ArtifactStore(Construct):
    """A bucket whose objects are evidence: encrypted with one key, versioned, and never destroyed.

    Only the break-glass role may delete object versions, and nobody if there is none. An object cannot be
    written under another key. What is overwritten or deleted stays recoverable for a configured time.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, access_logs: s3.IBucket, config: ArtifactsConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self.key = encryption_key(self, "Key", arn=config.key_arn, description="Artifacts of MLflow on AWS")
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            bucket_key_enabled=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            server_access_logs_bucket=access_logs,
            server_access_logs_prefix="artifacts/",
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="Tidy",
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
                    noncurrent_version_expiration=cdk.Duration.days(config.noncurrent_days),
                    expired_object_delete_marker=True,
                ),
            ],
            metrics=[s3.BucketMetrics(id="EntireBucket")],
            removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )
        self._prefix = f"{config.prefix}/" if config.prefix else ""
        self._deny_version_deletion(config.break_glass_role_arn)
        self._deny_other_keys()

    @property
    def root(self) -> str:
        """The URL under which every artifact lives, `s3://BUCKET/` and the prefix."""
        return f"s3://{self.bucket.bucket_name}/{self._prefix}"

    @property
    def objects_arn(self) -> str:
        """The ARN of every artifact, all objects below the prefix."""
        return self.bucket.arn_for_objects(f"{self._prefix}*")

    @property
    def below_prefix(self) -> dict[str, dict[str, str]]:
        """The condition that limits a listing to artifacts; empty if they have the whole bucket."""
        return {"StringLike": {"s3:prefix": f"{self._prefix}*"}} if self._prefix else {}

    def grant_read(self, role: iam.Role) -> None:
        """Let a role of another stack list and read artifacts below the prefix, and nothing else."""
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["s3:ListBucket"], resources=[self.bucket.bucket_arn], conditions=self.below_prefix
            )
        )
        role.add_to_policy(iam.PolicyStatement(actions=["s3:GetObject"], resources=[self.objects_arn]))
        role.add_to_policy(iam.PolicyStatement(actions=["kms:Decrypt"], resources=[self.key.key_arn]))

        exported_arn = cdk.Stack.of(self).export_value(self.bucket.bucket_arn)
        acknowledge_resource(
            role,
            f"{exported_arn}/{self._prefix}*",
            because="reading every artifact is what this role is for; their keys are made by clients",
        )

    def _deny_version_deletion(self, break_glass_role_arn: str | None) -> None:
        unless = {"ArnNotEquals": {"aws:PrincipalArn": break_glass_role_arn}} if break_glass_role_arn else {}
        self._deny("OnlyBreakGlassDeletesVersions", "s3:DeleteObjectVersion", unless)

    def _deny_other_keys(self) -> None:
        """Refuse an upload that names an encryption other than the bucket's own; most name none."""
        algorithm, key = "s3:x-amz-server-side-encryption", "s3:x-amz-server-side-encryption-aws-kms-key-id"
        customer_key = "s3:x-amz-server-side-encryption-customer-algorithm"
        # Both "named" and "other": without "named", and also with `…IfExists`, IAM takes a missing header
        # as a match, and would refuse every plain upload.
        self._deny(
            "OnlyKms",
            "s3:PutObject",
            {"Null": {algorithm: "false"}, "StringNotEquals": {algorithm: "aws:kms"}},
        )
        self._deny(
            "OnlyOurKey",
            "s3:PutObject",
            {"Null": {key: "false"}, "StringNotEquals": {key: self.key.key_arn}},
        )
        # KMS without a key means the account's default key, not the bucket's.
        self._deny(
            "OnlyNamedKey", "s3:PutObject", {"StringEquals": {algorithm: "aws:kms"}, "Null": {key: "true"}}
        )
        self._deny("NoCustomerKey", "s3:PutObject", {"Null": {customer_key: "false"}})

    def _deny(self, sid: str, action: str, conditions: dict[str, dict[str, str]]) -> None:
        self.bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid=sid,
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=[action],
                resources=[self.bucket.arn_for_objects("*")],
                conditions=conditions,
            )
        )
