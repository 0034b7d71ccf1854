"""What programs are given in IAM: a policy for each role, and ready-made roles for those outside AWS.

Here rather than beside the server: a policy that is attached to somebody's role cannot be deleted, and the
ARN of a role is the name under which its work is recorded. Redeploying the service must touch neither.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.config import EnvironmentConfig
from stacks.foundation.account_switches import AccountSwitches
from stacks.foundation.artifact_store import ArtifactStore, through_s3
from stacks.foundation.workload_trust import GITHUB, STS, eks_trust, github_trust
from stacks.identity_config import account_of
from stacks.roles import ROLES, RoleEntry

SIGNING_ALGORITHM = "RS256"


class Clients(Construct):
    """A customer-managed policy for each role, to attach to any IAM role, and the roles of the file.

    Each policy gives the artifacts below the prefix, their key through S3 only, and tokens for this
    deployment only; an auditor's gives the audit log too. Nobody deletes a version, and
    what is sealed can only be read.

    Members of other accounts may do the same with artifacts and key, by the policies of bucket and key, once
    their own account gives it to them too.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        artifacts: ArtifactStore,
        account_switches: AccountSwitches,
        audit_log: logs.ILogGroup,
        verifier: iam.IManagedPolicy,
        environment: EnvironmentConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        audience = environment.ingress.url
        self.policies = {
            role.name: _policy(self, role, artifacts=artifacts, audience=audience, audit_log=audit_log)
            for role in ROLES
        }
        for role in ROLES:
            if elsewhere := environment.identity.members_elsewhere(role.name):
                _admit(elsewhere, role, artifacts=artifacts)
        self._github_roles(environment, account_switches, verifier)
        for eks in environment.identity.eks:
            self._role(eks.name, eks.role, eks_trust(eks))

    def _github_roles(
        self, environment: EnvironmentConfig, account_switches: AccountSwitches, verifier: iam.IManagedPolicy
    ) -> None:
        config, backup = environment.identity, environment.backup
        if not config.github:
            return
        provider = config.github_provider_arn or account_switches.oidc_provider(
            "Github", host=GITHUB, audience=STS
        )
        for github in config.github:
            # A deployment waits for the database, and its credentials end with the session.
            hours = 2 if github.deploys else None
            role = self._role(
                github.name, github.role, github_trust(github, provider_arn=provider), hours=hours
            )
            if github.deploys:
                role.add_managed_policy(verifier)
                regions = [cdk.Stack.of(self).region]
                _let_deploy(role, regions + ([backup.recovery.region] if backup and backup.recovery else []))

    def _role(self, name: str, role: str, trust: iam.IPrincipal, *, hours: int | None = None) -> iam.Role:
        return iam.Role(
            self,
            f"Role{name}",
            role_name=name,
            description=f"Works with MLflow as {role}",
            assumed_by=trust,
            managed_policies=[self.policies[role]],
            max_session_duration=cdk.Duration.hours(hours) if hours else None,
        )


def _let_deploy(role: iam.Role, regions: Sequence[str]) -> None:
    """Let this role become those by which `cdk deploy` and `cdk diff` work, and no other.

    https://docs.aws.amazon.com/cdk/v2/guide/bootstrapping-env.html
    """
    stack = cdk.Stack.of(role)
    qualifier = cdk.DefaultStackSynthesizer.DEFAULT_QUALIFIER
    role.add_to_policy(
        iam.PolicyStatement(
            actions=["sts:AssumeRole"],
            resources=[
                f"arn:{stack.partition}:iam::{stack.account}:role/cdk-{qualifier}-{work}-role-{stack.account}-{region}"
                for region in regions
                for work in ("deploy", "file-publishing", "lookup")
            ],
        )
    )


def _policy(
    scope: Construct, role: RoleEntry, *, artifacts: ArtifactStore, audience: str, audit_log: logs.ILogGroup
) -> iam.ManagedPolicy:
    # No description and no name: changing one would replace the policy, which fails while it is attached.
    policy = iam.ManagedPolicy(
        scope,
        f"{role.construct_id}Policy",
        statements=[
            iam.PolicyStatement(
                sid="List",
                actions=list(role.bucket),
                resources=[artifacts.bucket.bucket_arn],
                conditions=artifacts.below_prefix,
            ),
            iam.PolicyStatement(
                sid="Artifacts", actions=list(role.objects), resources=[artifacts.objects_arn]
            ),
            iam.PolicyStatement(
                sid="KeyThroughS3Only",
                actions=list(role.key),
                resources=[artifacts.key.key_arn],
                conditions=through_s3(cdk.Stack.of(scope)),
            ),
            tokens_for_mlflow_only(audience),
        ],
    )
    if role.writes:
        # The bucket's policy says it to everybody; here it is said to whoever reads this one.
        policy.add_statements(
            iam.PolicyStatement(
                sid="SealedIsReadOnly",
                effect=iam.Effect.DENY,
                actions=list(role.writes),
                resources=[artifacts.sealed_arn],
            )
        )
    if role.audit_log:
        policy.add_statements(
            iam.PolicyStatement(
                sid="AuditLog", actions=list(role.audit_log), resources=[audit_log.log_group_arn]
            ),
            # Of a query whose id the caller knows: the answer to StartQuery.
            iam.PolicyStatement(sid="QueryResults", actions=["logs:GetQueryResults"], resources=["*"]),
        )
    acknowledge_resource(
        policy,
        artifacts.objects_arn,
        because="which artifacts there will be is not known; the bucket and the prefix are named",
    )
    acknowledge_resource(
        policy,
        "*",
        because="sts:GetWebIdentityToken, whose condition names the audience, and an auditor's "
        "logs:GetQueryResults have no resource",
    )
    return policy


def tokens_for_mlflow_only(audience: str) -> iam.PolicyStatement:
    """Tokens of the caller's own role, for this deployment and nothing else."""
    return iam.PolicyStatement(
        sid="TokensForMlflowOnly",
        actions=["sts:GetWebIdentityToken"],
        resources=["*"],
        conditions={
            # Each audience must be this one; ForAllValues alone would also hold for none.
            "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": audience},
            "Null": {"sts:IdentityTokenAudience": "false"},
            "StringEquals": {"sts:SigningAlgorithm": SIGNING_ALGORITHM},
        },
    )


def _admit(elsewhere: Sequence[str], role: RoleEntry, *, artifacts: ArtifactStore) -> None:
    """Let these roles of other accounts do with artifacts and key what this role may.

    A policy of a resource cannot name a pattern as its principal: it names the accounts, and the patterns in
    a condition.
    """
    accounts = [iam.AccountPrincipal(account) for account in sorted({*map(account_of, elsewhere)})]
    members = {"ArnLike": {"aws:PrincipalArn": list(elsewhere)}}

    def allow(actions: Sequence[str], resource: str, conditions: Mapping[str, Any]) -> iam.PolicyStatement:
        return iam.PolicyStatement(
            principals=accounts,
            actions=list(actions),
            resources=[resource],
            conditions={**members, **conditions},
        )

    bucket = artifacts.bucket
    bucket.add_to_resource_policy(allow(role.bucket, bucket.bucket_arn, artifacts.below_prefix))
    bucket.add_to_resource_policy(allow(role.objects, artifacts.objects_arn, {}))
    # In a key's policy, `*` is the key itself.
    artifacts.key.add_to_resource_policy(allow(role.key, "*", through_s3(cdk.Stack.of(artifacts))))
