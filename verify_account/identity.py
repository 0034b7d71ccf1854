"""Checks of who gets in: programs with an IAM role's token, people of the user pool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from verify_account.check import CheckResult, Clients, Outputs, listed

_POLICY_OUTPUT = "PolicyArn"
_READERS = ("auditor", "viewer")
_READ_ACTIONS = (
    "s3:Get", "s3:List", "kms:Decrypt", "logs:Describe", "logs:Filter", "logs:Get", "sts:GetWebIdentityToken",
)  # fmt: skip
_PASSWORD_KINDS = ("RequireLowercase", "RequireUppercase", "RequireNumbers", "RequireSymbols")
_SHORTEST_PASSWORD = 14


def programs(clients: Clients, outputs: Outputs) -> list[CheckResult]:
    """Programs get tokens from this account's issuer, for this deployment only."""
    info = clients("iam").get_outbound_web_identity_federation_info()
    policies = {role: _statements(clients, arn) for role, arn in _policies(outputs).items()}
    tokens = [
        each
        for statements in policies.values()
        for each in statements
        if "sts:GetWebIdentityToken" in listed(each["Action"])
    ]
    reading = {action for role in _READERS for each in policies[role] for action in listed(each["Action"])}
    return [
        CheckResult(
            "outbound federation is on, and the outputs name its issuer",
            info["JwtVendingEnabled"] and info["IssuerIdentifier"] == outputs["TokenIssuer"],
            info,
        ),
        CheckResult(
            "every role's policy gives tokens for this deployment only",
            len(tokens) == len(policies)
            and all(_only_for(each, outputs["TokenAudience"]) for each in tokens),
            tokens,
        ),
        CheckResult(
            "the policies of auditors and viewers write nothing",
            all(action.startswith(_READ_ACTIONS) for action in reading),
            sorted(reading),
        ),
    ]


def people(clients: Clients, outputs: Outputs) -> list[CheckResult]:
    """People are in the directory by an administrator's doing, and sign in with more than a weak password."""
    cognito, pool_id = clients("cognito-idp"), outputs["UserPoolId"]
    pool = cognito.describe_user_pool(UserPoolId=pool_id)["UserPool"]
    client = cognito.describe_user_pool_client(UserPoolId=pool_id, ClientId=outputs["UserPoolClientId"])[
        "UserPoolClient"
    ]
    password = pool["Policies"]["PasswordPolicy"]
    groups = {each["GroupName"] for each in cognito.list_groups(UserPoolId=pool_id)["Groups"]}
    return [
        CheckResult(
            "nobody signs up by themselves",
            pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"],
            pool["AdminCreateUserConfig"],
        ),
        CheckResult(
            "passwords are long and mix all kinds of characters",
            password["MinimumLength"] >= _SHORTEST_PASSWORD
            and all(password[kind] for kind in _PASSWORD_KINDS),
            password,
        ),
        CheckResult(
            "a second factor is available",
            pool.get("MfaConfiguration") in ("OPTIONAL", "ON"),
            pool.get("MfaConfiguration"),
        ),
        CheckResult(
            "the user pool is protected from deletion",
            pool.get("DeletionProtection") == "ACTIVE",
            pool.get("DeletionProtection"),
        ),
        CheckResult(
            "each role has its group",
            groups >= {f"mlflow-{role}" for role in _policies(outputs)},
            sorted(groups),
        ),
        CheckResult(
            "people sign in by the authorization code flow, with the client's secret",
            client.get("AllowedOAuthFlows") == ["code"] and bool(client.get("ClientSecret")),
            client.get("AllowedOAuthFlows"),
        ),
    ]


def _policies(outputs: Outputs) -> dict[str, str]:
    """The ARN of each role's policy."""
    return {
        name.removesuffix(_POLICY_OUTPUT).lower(): arn
        for name, arn in outputs.items()
        if name.endswith(_POLICY_OUTPUT)
    }


def _only_for(statement: Mapping[str, Any], audience: str) -> bool:
    conditions = statement.get("Condition", {})
    wanted = conditions.get("ForAllValues:StringEquals", {}).get("sts:IdentityTokenAudience")
    present = conditions.get("Null", {}).get("sts:IdentityTokenAudience")
    return listed(wanted) == [audience] and listed(present) in (["false"], [False])


def _statements(clients: Clients, policy_arn: str) -> list[Mapping[str, Any]]:
    iam = clients("iam")
    version = iam.get_policy(PolicyArn=policy_arn)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=policy_arn, VersionId=version)["PolicyVersion"]["Document"]
    return listed((json.loads(document) if isinstance(document, str) else document)["Statement"])
