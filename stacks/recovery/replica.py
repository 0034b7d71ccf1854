"""The copy of the artifact bucket in the second region."""

import aws_cdk as cdk
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.config import ArtifactsConfig
from stacks.kept_bucket import KeptBucket
from stacks.keys import encryption_key


class Replica(Construct):
    """A bucket that S3 copies artifacts to, kept as those are; nobody else writes to it.

    Its name and its key's alias are known to the other region before it exists.
    """

    def __init__(self, scope: Construct, construct_id: str, *, config: ArtifactsConfig) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        self.region = stack.region
        name = f"{stack.stack_name.lower()}-{cdk.Aws.ACCOUNT_ID}"
        self.bucket_arn = f"arn:{cdk.Aws.PARTITION}:s3:::{name}"
        self.key_alias = f"alias/{stack.stack_name.lower()}-artifacts"
        self.key_alias_arn = self._key_arn(self.key_alias)
        self.any_key_arn = self._key_arn("key/*")
        key = encryption_key(self, "Key", arn=None, description="Replica of the artifacts of MLflow on AWS")
        key.add_alias(self.key_alias)
        bucket = KeptBucket(self, "Bucket", key=key, config=config, bucket_name=name)
        bucket.deny(
            "OnlyReplicationWrites",
            not_actions=["s3:GetObject*", "s3:Replicate*", "s3:DeleteObjectVersion"],
        )
        acknowledge(
            bucket,
            "AwsSolutions-S1",
            because="S3 alone writes to the replica, and nobody reads it before a recovery",
        )

    def _key_arn(self, name: str) -> str:
        return f"arn:{cdk.Aws.PARTITION}:kms:{self.region}:{cdk.Aws.ACCOUNT_ID}:{name}"
