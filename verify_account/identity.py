"""Checks of who gets in: programs with an IAM role's token, people of the user pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from verify_account.account import Account, Check, listed
from verify_account.policies import Statement, managed_statements
from verify_account.templates import agrees

_POLICY_OUTPUT = "PolicyArn"
_READERS = ("auditor", "viewer")
_READ_ACTIONS = (
    "s3:Get", "s3:List", "kms:Decrypt", "logs:Describe", "logs:Filter", "logs:Get", "logs:StartQuery",
    "sts:GetWebIdentityToken",
)  # fmt: skip
_PASSWORD_KINDS = ("RequireLowercase", "RequireUppercase", "RequireNumbers", "RequireSymbols")
_SHORTEST_PASSWORD = 14
# The secret is asked for by itself, and where people return to.
_NOT_TOLD = {"GenerateSecret", "CallbackURLs"}
_CALLBACK = "/oauth2/idpresponse"
_CLIENT = "AWS::Cognito::UserPoolClient"
_PROVIDER = "AWS::Cognito::UserPoolIdentityProvider"
_POOL = "aws cognito-idp update-user-pool"


def _policies(account: Account) -> dict[str, list[Statement]]:
    """The statements of each role's policy."""
    return {
        name.removesuffix(_POLICY_OUTPUT).lower(): managed_statements(account, arn)
        for name, arn in account.outputs.items()
        if name.endswith(_POLICY_OUTPUT)
    }


def _federation(account: Account) -> tuple[bool, object]:
    info = account.ask("iam", "get_outbound_web_identity_federation_info")
    told = {key: info.get(key) for key in ("JwtVendingEnabled", "IssuerIdentifier")}
    return told == {"JwtVendingEnabled": True, "IssuerIdentifier": account.outputs["TokenIssuer"]}, told


def _tokens(account: Account) -> tuple[bool, object]:
    policies = _policies(account)
    tokens = [
        each
        for statements in policies.values()
        for each in statements
        if "sts:GetWebIdentityToken" in listed(each["Action"])
    ]
    audience = account.outputs["TokenAudience"]
    return len(tokens) == len(policies) and all(_only_for(each, audience) for each in tokens), tokens


def _only_for(statement: Mapping[str, Any], audience: str) -> bool:
    conditions = statement.get("Condition", {})
    wanted = conditions.get("ForAllValues:StringEquals", {}).get("sts:IdentityTokenAudience")
    present = conditions.get("Null", {}).get("sts:IdentityTokenAudience")
    return listed(wanted) == [audience] and listed(present) in (["false"], [False])


def _readers(account: Account) -> tuple[bool, object]:
    policies = _policies(account)
    reading = {
        action for role in _READERS for each in policies[role] for action in listed(each.get("Action", "*"))
    }
    return all(action.startswith(_READ_ACTIONS) for action in reading), sorted(reading)


def _pool(account: Account) -> dict[str, Any]:
    return dict(
        account.ask("cognito-idp", "describe_user_pool", UserPoolId=account.outputs["UserPoolId"])["UserPool"]
    )


def _client(account: Account) -> dict[str, Any]:
    pool, client = account.outputs["UserPoolId"], account.outputs["UserPoolClientId"]
    return dict(
        account.ask("cognito-idp", "describe_user_pool_client", UserPoolId=pool, ClientId=client)[
            "UserPoolClient"
        ]
    )


def _no_sign_up(account: Account) -> tuple[bool, object]:
    told = _pool(account)["AdminCreateUserConfig"]
    return told.get("AllowAdminCreateUserOnly") is True, told


def _passwords(account: Account) -> tuple[bool, object]:
    told = _pool(account)["Policies"]["PasswordPolicy"]
    return told["MinimumLength"] >= _SHORTEST_PASSWORD and all(told[kind] for kind in _PASSWORD_KINDS), told


def _second_factor(account: Account) -> tuple[bool, object]:
    wanted = account.only("AWS::Cognito::UserPool").properties.get("MfaConfiguration", "OPTIONAL")
    live = _pool(account).get("MfaConfiguration")
    return live == "ON" or (live == "OPTIONAL" and wanted != "ON"), f"{live}, configured {wanted}"


def _pool_protected(account: Account) -> tuple[bool, object]:
    live = _pool(account).get("DeletionProtection")
    return live == "ACTIVE", live


def _no_triggers(account: Account) -> tuple[bool, object]:
    live = _pool(account).get("LambdaConfig") or {}
    wanted = account.only("AWS::Cognito::UserPool").properties.get("LambdaConfig") or {}
    return set(live) <= set(wanted), live or "no function takes part in signing in"


def _groups(account: Account) -> tuple[bool, object]:
    answer = account.ask("cognito-idp", "list_groups", UserPoolId=account.outputs["UserPoolId"])
    groups = sorted(each["GroupName"] for each in answer["Groups"])
    return set(groups) >= {f"mlflow-{role}" for role in _policies(account)}, groups


def _one_client(account: Account) -> tuple[bool, object]:
    answer = account.ask("cognito-idp", "list_user_pool_clients", UserPoolId=account.outputs["UserPoolId"])
    live = {each["ClientId"] for each in answer["UserPoolClients"]}
    return live <= {each.physical_id for each in account.of_type(_CLIENT)}, sorted(live)


def _providers(account: Account) -> tuple[bool, object]:
    answer = account.ask("cognito-idp", "list_identity_providers", UserPoolId=account.outputs["UserPoolId"])
    wanted = {str(each.properties["ProviderName"]) for each in account.of_type(_PROVIDER)}
    live = {each["ProviderName"] for each in answer["Providers"]}
    return live == wanted, sorted(live) or "the pool's own users only"


def _flow(account: Account) -> tuple[bool, object]:
    client, stated = _client(account), account.only(_CLIENT).properties
    told = {key: client.get(key) for key in sorted(set(stated) - _NOT_TOLD)}
    right = all(agrees(stated[key], live) for key, live in told.items())
    return right and told["AllowedOAuthFlows"] == ["code"] and bool(client.get("ClientSecret")), told


def _callback(account: Account) -> tuple[bool, object]:
    """The host, or a domain that holds it."""
    host = str(urlsplit(account.outputs["TrackingUrl"]).hostname)
    urls = _client(account).get("CallbackURLs", [])
    parts = [urlsplit(each) for each in urls]
    return [(each.scheme, each.path, f".{host}".endswith(f".{each.hostname}")) for each in parts] == [
        ("https", _CALLBACK, True)
    ], urls


CHECKS = (
    Check(
        "outbound federation is on, and the outputs name its issuer",
        _federation,
        "aws iam enable-outbound-web-identity-federation",
    ),
    Check(
        "every role's policy gives tokens for this deployment only",
        _tokens,
        "restore the policy's default version: aws iam set-default-policy-version",
    ),
    Check(
        "the policies of auditors and viewers write nothing",
        _readers,
        "restore the policy's default version: aws iam set-default-policy-version",
    ),
    Check("nobody signs up by themselves", _no_sign_up, f"{_POOL}: AllowAdminCreateUserOnly=true"),
    Check("passwords are long and mix all kinds of characters", _passwords, f"{_POOL} --policies"),
    Check(
        "a second factor is available, or required, as configured",
        _second_factor,
        "aws cognito-idp set-user-pool-mfa-config",
    ),
    Check(
        "the user pool is protected from deletion", _pool_protected, f"{_POOL} --deletion-protection ACTIVE"
    ),
    Check("no function changes how people sign in", _no_triggers, f"{_POOL} without --lambda-config"),
    Check("each role has its group", _groups, "aws cognito-idp create-group"),
    Check(
        "the load balancer is the user pool's only application",
        _one_client,
        "aws cognito-idp delete-user-pool-client",
    ),
    Check(
        "people come from the configured identity providers, and no other",
        _providers,
        "aws cognito-idp delete-identity-provider",
    ),
    Check(
        "people sign in by the authorization code flow, with the client's secret",
        _flow,
        "aws cognito-idp update-user-pool-client with the stack's settings",
    ),
    Check(
        "people return to this deployment after signing in, and nowhere else",
        _callback,
        "aws cognito-idp update-user-pool-client --callback-urls",
    ),
)
