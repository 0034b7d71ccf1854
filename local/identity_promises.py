"""What the stacks promise about who gets in, looked up in the deployed resources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from local.deployment import Stack
from local.parts.aws import Aws

Promise = tuple[str, bool, Any]
_ROLES = ("viewer", "contributor", "approver", "admin")
_SHORTEST_PASSWORD = 14


def programs(aws: Aws, _foundation: Stack, service: Stack) -> list[Promise]:
    """Of the issuer of programs' tokens, and of the policies that let them ask for some."""
    info = aws.client("iam").get_outbound_web_identity_federation_info()
    policies = {role: _statements(aws, service.outputs[f"{role.capitalize()}PolicyArn"]) for role in _ROLES}
    audience = service.outputs["TokenAudience"]
    tokens = [
        each
        for statements in policies.values()
        for each in statements
        if "sts:GetWebIdentityToken" in _list(each["Action"])
    ]
    viewers = {action for each in policies["viewer"] for action in _list(each["Action"])}
    return [
        (
            "outbound federation is on, and the outputs name its issuer",
            info["JwtVendingEnabled"] and info["IssuerIdentifier"] == service.outputs["TokenIssuer"],
            info,
        ),
        (
            "every role's policy gives tokens for this deployment only",
            len(tokens) == len(_ROLES) and all(_only_for(each, audience) for each in tokens),
            tokens,
        ),
        (
            "a viewer's policy writes nothing",
            not {each for each in viewers if not each.startswith(_READING)},
            sorted(viewers),
        ),
    ]


def people(aws: Aws, _foundation: Stack, service: Stack) -> list[Promise]:
    """Of the user pool and its one client."""
    cognito, name = aws.client("cognito-idp"), {"UserPoolId": service.outputs["UserPoolId"]}
    pool = cognito.describe_user_pool(**name)["UserPool"]
    client = cognito.describe_user_pool_client(**name, ClientId=service.outputs["UserPoolClientId"])[
        "UserPoolClient"
    ]
    password = pool["Policies"]["PasswordPolicy"]
    kinds = ("RequireLowercase", "RequireUppercase", "RequireNumbers", "RequireSymbols")
    groups = {each["GroupName"] for each in cognito.list_groups(**name)["Groups"]}
    return [
        (
            "nobody signs up by themselves",
            pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"],
            pool["AdminCreateUserConfig"],
        ),
        (
            "passwords are long and of all kinds of characters",
            password["MinimumLength"] >= _SHORTEST_PASSWORD and all(password[kind] for kind in kinds),
            password,
        ),
        (
            "a second factor is available",
            pool.get("MfaConfiguration") in ("OPTIONAL", "ON"),
            pool.get("MfaConfiguration"),
        ),
        (
            "the directory of people is protected from deletion",
            pool.get("DeletionProtection") == "ACTIVE",
            pool.get("DeletionProtection"),
        ),
        ("each role has its group", groups >= {f"mlflow-{role}" for role in _ROLES}, sorted(groups)),
        (
            "people sign in by the authorization code flow, with the client's secret",
            client.get("AllowedOAuthFlows") == ["code"] and bool(client.get("ClientSecret")),
            client.get("AllowedOAuthFlows"),
        ),
    ]


def rules(aws: Aws, _foundation: Stack, service: Stack) -> list[Promise]:
    """Of what the listener lets through, and in which order."""
    elb = aws.client("elbv2")
    arn = service.of_type("AWS::ElasticLoadBalancingV2::LoadBalancer")[0]
    listener = elb.describe_listeners(LoadBalancerArn=arn)["Listeners"][0]
    described = elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]
    first = {each["Priority"]: each["Actions"][0] for each in described}
    token = first.get("10", {}).get("JwtValidationConfig", {})
    claims = [(each["Name"], each["Format"], each["Values"]) for each in token.get("AdditionalClaims") or []]
    default = first["default"]
    unauthenticated = {
        priority: first.get(priority, {}).get("AuthenticateCognitoConfig", {}).get("OnUnauthenticatedRequest")
        for priority in ("20", "30")
    }
    forwarding = [
        each["Priority"]
        for each in described
        if each["Actions"][0]["Type"] not in ("jwt-validation", "authenticate-cognito")
    ]
    return [
        (
            "a program's token is checked at the edge: its issuer, and that it is for this deployment",
            token.get("Issuer") == service.outputs["TokenIssuer"]
            and claims == [("aud", "single-string", [service.outputs["TokenAudience"]])],
            token,
        ),
        (
            "who has no session is refused where a page fetches, and sent to sign in where people go",
            unauthenticated == {"20": "deny", "30": "authenticate"},
            unauthenticated,
        ),
        (
            "every rule identifies the caller first; whoever matches none gets 401",
            forwarding == ["default"]
            and default["Type"] == "fixed-response"
            and default["FixedResponseConfig"]["StatusCode"] == "401",
            described,
        ),
    ]


_READING = ("s3:Get", "s3:List", "kms:Decrypt", "sts:GetWebIdentityToken")


def _only_for(statement: Mapping[str, Any], audience: str) -> bool:
    conditions = statement.get("Condition", {})
    wanted = conditions.get("ForAllValues:StringEquals", {}).get("sts:IdentityTokenAudience")
    present = conditions.get("Null", {}).get("sts:IdentityTokenAudience")
    return _list(wanted) == [audience] and _list(present) in (["false"], [False])


def _statements(aws: Aws, policy_arn: str) -> list[Mapping[str, Any]]:
    iam = aws.client("iam")
    version = iam.get_policy(PolicyArn=policy_arn)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=policy_arn, VersionId=version)["PolicyVersion"]["Document"]
    return _list((json.loads(document) if isinstance(document, str) else document)["Statement"])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
