"""What a client and an operator need to know of a deployment."""

import aws_cdk as cdk
from aws_cdk import aws_logs as logs

from stacks.config import EnvironmentConfig
from stacks.foundation.stack import MlflowFoundation
from stacks.roles import ROLES
from stacks.service.ingress import Ingress
from stacks.service.sign_in import SignIn
from stacks.service.tracking_server import TrackingServer


def publish(
    stack: cdk.Stack,
    *,
    foundation: MlflowFoundation,
    server: TrackingServer,
    log: logs.ILogGroup,
    ingress: Ingress,
    sign_in: SignIn,
    environment: EnvironmentConfig,
) -> None:
    """Write the stack's outputs."""
    url, trusted = environment.ingress.url, environment.identity.trusted_issuers
    artifacts, people = foundation.artifacts, foundation.people
    records = ingress.records_to_create
    outputs = {
        "TrackingUrl": url,
        "FoundationStack": foundation.stack_name,
        "ServiceStack": stack.stack_name,
        "ArtifactBucket": artifacts.bucket.bucket_name,
        "ArtifactKeyArn": artifacts.key.key_arn,
        "ClusterName": server.service.cluster.cluster_name,
        "ServiceName": server.service.service_name,
        "LogGroup": log.log_group_name,
        "DatabaseEndpoint": foundation.database.endpoint.socket_address,
        "BreakGlassPolicy": foundation.break_glass.policy.managed_policy_arn,
        "LoadBalancerDnsName": ingress.load_balancer.load_balancer_dns_name,
        **({"DnsRecordsToCreate": "; ".join(records)} if records else {}),
        "SignInUrl": people.sign_in_url,
        "UserPoolId": people.pool.user_pool_id,
        "UserPoolClientId": sign_in.client.user_pool_client_id,
        "TokenIssuer": foundation.account_switches.issuer,
        **({"TrustedIssuers": " ".join(each.issuer for each in trusted)} if trusted else {}),
        "TokenAudience": url,
        "VerifierPolicy": foundation.verifier.policy.managed_policy_arn,
        **{
            f"{role.construct_id}PolicyArn": foundation.clients.policies[role.name].managed_policy_arn
            for role in ROLES
        },
    }
    for name, value in outputs.items():
        cdk.CfnOutput(stack, name, value=value)
