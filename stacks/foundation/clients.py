"""What programs are given in IAM: a policy for each role, and ready-made roles for those outside AWS.

Here rather than beside the server: a policy that is attached to somebody's role cannot be deleted, and the
ARN of a role is the name under which its work is recorded. Redeploying the service must touch neither.
"""

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.config import EnvironmentConfig
from stacks.foundation.artifact_store import ArtifactStore
from stacks.foundation.workload_trust import eks_trust, github_provider, github_trust
from stacks.identity_config import ROLES

SIGNING_ALGORITHM = "RS256"

READ = ("s3:GetObject",)
# Overwriting and deleting leave the former version, which nobody can delete.
WRITE = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject")
RECOVER = ("s3:GetObjectVersion",)
OBJECT_ACTIONS: Mapping[str, Sequence[str]] = {
    "viewer": READ,
    "contributor": (*READ, *WRITE),
    "approver": (*READ, *WRITE),
    "admin": (*READ, *WRITE, *RECOVER),
}
BUCKET_ACTIONS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(ROLES, ("s3:ListBucket",)),
    "admin": ("s3:ListBucket", "s3:ListBucketVersions"),
}
KEY_ACTIONS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(ROLES, ("kms:Decrypt", "kms:GenerateDataKey")),
    "viewer": ("kms:Decrypt",),
}


class Clients(Construct):
    """A customer-managed policy for each role, to attach to any IAM role, and the roles of the file.

    Each policy gives the artifacts below the prefix, their key through S3 only, and tokens for this
    deployment only. A viewer writes nothing; nobody deletes a version.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, artifacts: ArtifactStore, environment: EnvironmentConfig
    ) -> None:
        super().__init__(scope, construct_id)
        audience = environment.ingress.url
        self.policies = {role: _policy(self, role, artifacts=artifacts, audience=audience) for role in ROLES}
        self._ready_made(environment)

    def _ready_made(self, environment: EnvironmentConfig) -> None:
        identity = environment.identity
        provider = github_provider(self, identity) if identity.github else ""
        for github in identity.github:
            self._role(github.name, github.role, github_trust(github, provider_arn=provider))
        for eks in identity.eks:
            self._role(eks.name, eks.role, eks_trust(eks))

    def _role(self, name: str, role: str, trust: iam.IPrincipal) -> None:
        iam.Role(
            self,
            f"Role{name}",
            role_name=name,
            description=f"Works with MLflow as {role}",
            assumed_by=trust,
            managed_policies=[self.policies[role]],
        )


def _policy(scope: Construct, role: str, *, artifacts: ArtifactStore, audience: str) -> iam.ManagedPolicy:
    # No description and no name: changing one would replace the policy, which fails while it is attached.
    policy = iam.ManagedPolicy(
        scope,
        f"{role.capitalize()}Policy",
        statements=[
            iam.PolicyStatement(
                sid="List",
                actions=list(BUCKET_ACTIONS[role]),
                resources=[artifacts.bucket.bucket_arn],
                conditions=artifacts.below_prefix,
            ),
            iam.PolicyStatement(
                sid="Artifacts", actions=list(OBJECT_ACTIONS[role]), resources=[artifacts.objects_arn]
            ),
            iam.PolicyStatement(
                sid="KeyThroughS3Only",
                actions=list(KEY_ACTIONS[role]),
                resources=[artifacts.key.key_arn],
                conditions={"StringEquals": {"kms:ViaService": _s3_of(cdk.Stack.of(scope))}},
            ),
            iam.PolicyStatement(
                sid="TokensForMlflowOnly",
                actions=["sts:GetWebIdentityToken"],
                resources=["*"],
                conditions={
                    # Of several audiences each must be ours; of none, "each" would hold too.
                    "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": audience},
                    "Null": {"sts:IdentityTokenAudience": "false"},
                    "StringEquals": {"sts:SigningAlgorithm": SIGNING_ALGORITHM},
                },
            ),
        ],
    )
    acknowledge_resource(
        policy,
        artifacts.objects_arn,
        because="which artifacts there will be is not known; the bucket and the prefix are named",
    )
    acknowledge_resource(
        policy, "*", because="sts:GetWebIdentityToken has no resource; the condition names the audience"
    )
    return policy


def _s3_of(stack: cdk.Stack) -> str:
    return f"s3.{stack.region}.amazonaws.com"
