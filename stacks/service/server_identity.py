"""What the server is told about identities: whom to believe, and who may do what."""

import aws_cdk as cdk

from stacks.config import EnvironmentConfig
from stacks.foundation.stack import MlflowFoundation
from stacks.foundation.user_directory import UserDirectory
from stacks.identity_config import IdentityConfig
from stacks.roles import ROLES, RoleEntry
from stacks.service.canary import Canary
from stacks.service.sign_in import SignIn


def server_identity(
    stack: cdk.Stack,
    *,
    foundation: MlflowFoundation,
    sign_in: SignIn,
    canary: Canary | None,
    environment: EnvironmentConfig,
) -> dict[str, str]:
    """Return the server's environment: issuers, audience, client id, and the roles. No secret."""
    people = foundation.people
    roles: dict[str, dict[str, object]] = {
        role.name: {
            "permissions": list(role.permissions),
            "iam_roles": _iam_roles(stack, role, environment.identity),
            "groups": _groups(role, people, environment.identity),
        }
        for role in ROLES
    }
    if canary is not None:
        roles["canary"] = canary.mlflow_role
    return {
        "MLFLOW_AWS_TOKEN_ISSUERS": _token_issuers(stack, foundation, environment.identity),
        "MLFLOW_AWS_TOKEN_AUDIENCE": environment.ingress.url,
        "MLFLOW_AWS_USER_POOL_ISSUER": people.issuer,
        "MLFLOW_AWS_USER_POOL_CLIENT_ID": sign_in.client.user_pool_client_id,
        "MLFLOW_AWS_ROLES": stack.to_json_string(roles),
    }


def _token_issuers(stack: cdk.Stack, foundation: MlflowFoundation, config: IdentityConfig) -> str:
    """This account's issuer and the others': each believed about the roles of its own account only."""
    trusted = {each.account: each.issuer for each in config.trusted_issuers}
    issuers = {stack.account: foundation.account_switches.issuer, **trusted}
    return " ".join(f"arn:{stack.partition}:iam::{account}={issuer}" for account, issuer in issuers.items())


def _iam_roles(stack: cdk.Stack, role: RoleEntry, config: IdentityConfig) -> list[str]:
    """The patterns of the file, and the ready-made roles: by name, so that no export ties the stacks."""
    arns = [
        stack.format_arn(service="iam", region="", resource="role", resource_name=each.name)
        for each in config.ready_made
        if each.role == role.name
    ]
    return [*config.members(role.name).iam_roles, *arns]


def _groups(role: RoleEntry, people: UserDirectory, config: IdentityConfig) -> list[str]:
    of_providers = [
        group for group, everyones in people.groups_of_providers.items() if everyones == role.name
    ]
    return [role.group, *config.members(role.name).groups, *of_providers]
