"""Where the bucket and the load balancer write who asked for what."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.config import ArtifactsConfig


class AccessLogs(Construct):
    """A private bucket for access logs, which expire. Only S3 and this account's load balancers write to it.

    Encrypted with S3's own key: log delivery supports no other.
    """

    def __init__(self, scope: Construct, construct_id: str, *, config: ArtifactsConfig) -> None:
        super().__init__(scope, construct_id)
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="Expire",
                    expiration=cdk.Duration.days(config.access_log_days),
                    noncurrent_version_expiration=cdk.Duration.days(7),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
                ),
            ],
            removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )
        stack = cdk.Stack.of(self)
        balancers = stack.format_arn(
            service="elasticloadbalancing", resource="loadbalancer", resource_name="*"
        )
        self.bucket.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("logdelivery.elasticloadbalancing.amazonaws.com")],
                actions=["s3:PutObject"],
                resources=[self.bucket.arn_for_objects(f"alb/AWSLogs/{stack.account}/*")],
                conditions={"ArnLike": {"aws:SourceArn": balancers}},
            )
        )
