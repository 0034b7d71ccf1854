"""Checks of the load balancer: how it is reached, and whom it lets through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verify_account.check import CheckResult, Clients, Outputs


def listener(clients: Clients, outputs: Outputs) -> list[CheckResult]:
    """The only way in is TLS 1.3."""
    elb, arn = clients("elbv2"), _arn(clients, outputs)
    listeners = elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]
    attributes = {
        each["Key"]: each["Value"]
        for each in elb.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    }
    group = elb.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"][0]
    return [
        CheckResult(
            "the only listener is HTTPS on 443, TLS 1.3 only",
            [
                (each["Protocol"], each["Port"], each["SslPolicy"].startswith("ELBSecurityPolicy-TLS13-1-3"))
                for each in listeners
            ]
            == [("HTTPS", 443, True)],
            listeners,
        ),
        CheckResult(
            "invalid headers are dropped",
            attributes.get("routing.http.drop_invalid_header_fields.enabled") == "true",
            attributes,
        ),
        CheckResult("requests are logged", attributes.get("access_logs.s3.enabled") == "true", attributes),
        CheckResult("targets are healthy when /ready says so", group["HealthCheckPath"] == "/ready", group),
    ]


def rules(clients: Clients, outputs: Outputs) -> list[CheckResult]:
    """Nobody passes the listener without a token or a session."""
    elb = clients("elbv2")
    first_listener = elb.describe_listeners(LoadBalancerArn=_arn(clients, outputs))["Listeners"][0]
    described = elb.describe_rules(ListenerArn=first_listener["ListenerArn"])["Rules"]
    first = {each["Priority"]: each["Actions"][0] for each in described}
    tokens = {
        priority: action["JwtValidationConfig"]
        for priority, action in first.items()
        if "JwtValidationConfig" in action
    }
    issuers = {priority: each["Issuer"] for priority, each in tokens.items()}
    trusted = outputs.get("TrustedIssuers", "").split()
    default = first["default"]
    unauthenticated = {
        priority: first.get(priority, {}).get("AuthenticateCognitoConfig", {}).get("OnUnauthenticatedRequest")
        for priority in ("20", "30")
    }
    unidentified = [
        each["Priority"]
        for each in described
        if each["Actions"][0]["Type"] not in ("jwt-validation", "authenticate-cognito")
    ]
    return [
        CheckResult(
            "the load balancer checks a token's issuer, and that it is for this deployment",
            issuers.pop("10", None) == outputs["TokenIssuer"]
            and {*issuers.values()} == {*trusted}
            and all(_only_for(each, outputs["TokenAudience"]) for each in tokens.values()),
            tokens,
        ),
        CheckResult(
            "without a session, a page's calls are refused and a page's visitors sent to sign in",
            unauthenticated == {"20": "deny", "30": "authenticate"},
            unauthenticated,
        ),
        CheckResult(
            "every rule identifies the caller first; what matches no rule gets 401",
            unidentified == ["default"]
            and default["Type"] == "fixed-response"
            and default["FixedResponseConfig"]["StatusCode"] == "401",
            described,
        ),
    ]


def _only_for(token: Mapping[str, Any], audience: str) -> bool:
    claims = [(each["Name"], each["Format"], each["Values"]) for each in token.get("AdditionalClaims") or []]
    return claims == [("aud", "single-string", [audience])]


def _arn(clients: Clients, outputs: Outputs) -> Any:
    name = outputs["LoadBalancerDnsName"]
    for page in clients("elbv2").get_paginator("describe_load_balancers").paginate():
        for each in page["LoadBalancers"]:
            if each["DNSName"] == name:
                return each["LoadBalancerArn"]
    raise LookupError(f"no load balancer has the name {name}, the stack's output LoadBalancerDnsName")
