"""Whom a ready-made role trusts: one repository's workflows, or one Kubernetes service account."""

from aws_cdk import aws_iam as iam

from stacks.identity_config import EksConfig, GithubConfig

GITHUB = "token.actions.githubusercontent.com"
STS = "sts.amazonaws.com"


def github_trust(config: GithubConfig, *, provider_arn: str) -> iam.IPrincipal:
    """Trust exactly one subject of GitHub's tokens, made for AWS.

    https://docs.github.com/actions/reference/openid-connect-reference
    """
    return iam.FederatedPrincipal(
        provider_arn,
        {"StringEquals": {f"{GITHUB}:aud": STS, f"{GITHUB}:sub": config.subject}},
        "sts:AssumeRoleWithWebIdentity",
    )


def eks_trust(config: EksConfig) -> iam.IPrincipal:
    """Trust exactly one service account: by its cluster's OIDC provider, or through EKS Pod Identity.

    https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
    https://docs.aws.amazon.com/eks/latest/userguide/pod-id-abac.html
    """
    if config.oidc_provider_arn is not None:
        issuer = config.oidc_provider_arn.split(":oidc-provider/", 1)[1]
        account = f"system:serviceaccount:{config.namespace}:{config.service_account}"
        return iam.FederatedPrincipal(
            config.oidc_provider_arn,
            {"StringEquals": {f"{issuer}:aud": STS, f"{issuer}:sub": account}},
            "sts:AssumeRoleWithWebIdentity",
        )
    conditions = {
        "StringEquals": {
            "aws:RequestTag/eks-cluster-arn": config.cluster_arn,
            "aws:RequestTag/kubernetes-namespace": config.namespace,
            "aws:RequestTag/kubernetes-service-account": config.service_account,
        }
    }
    return iam.ServicePrincipal("pods.eks.amazonaws.com", conditions=conditions).with_session_tags()
