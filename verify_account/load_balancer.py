"""Checks of the load balancer: how it is reached, and whom it lets through."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from findings.reader import AbsentError, NotAskedError
from verify_account.account import Account, Check
from verify_account.templates import agrees

_TLS = "ELBSecurityPolicy-TLS13-1-3-2021-06"
_REQUIRED = {
    "routing.http.drop_invalid_header_fields.enabled": "true",
    "access_logs.s3.enabled": "true",
}
_HSTS = "routing.http.response.strict_transport_security.header_value"
_IDENTIFYING = ("jwt-validation", "authenticate-cognito")
_RULE = "AWS::ElasticLoadBalancingV2::ListenerRule"
_SOON = datetime.timedelta(days=14)


def load_balancer(account: Account) -> dict[str, Any]:
    """The load balancer that the outputs name.

    Raises:
        LookupError: the account has none of that name.
    """
    name = account.outputs["LoadBalancerDnsName"]
    for each in account.ask("elbv2", "describe_load_balancers")["LoadBalancers"]:
        if each["DNSName"] == name:
            return dict(each)
    raise LookupError(f"no load balancer has the name {name}, the stack's output LoadBalancerDnsName")


def _arn(account: Account) -> str:
    return str(load_balancer(account)["LoadBalancerArn"])


def _all_listeners(account: Account) -> list[dict[str, Any]]:
    return list(account.ask("elbv2", "describe_listeners", LoadBalancerArn=_arn(account))["Listeners"])


def _https(account: Account) -> dict[str, Any]:
    ours = {each.physical_id for each in account.of_type("AWS::ElasticLoadBalancingV2::Listener")}
    return next(each for each in _all_listeners(account) if each["ListenerArn"] in ours)


def _rules(account: Account) -> list[dict[str, Any]]:
    arn = _https(account)["ListenerArn"]
    return list(account.ask("elbv2", "describe_rules", ListenerArn=arn)["Rules"])


def _listeners(account: Account) -> tuple[bool, object]:
    told = [(each["Protocol"], each["Port"], each.get("SslPolicy")) for each in _all_listeners(account)]
    return told == [("HTTPS", 443, _TLS)], told


def _certificates(account: Account) -> tuple[bool, object]:
    wanted = account.only("AWS::ElasticLoadBalancingV2::Listener").properties["Certificates"]
    live = _https(account)["Certificates"]
    return agrees(wanted, live), [each["CertificateArn"] for each in live]


def _more_certificates(account: Account) -> tuple[bool, object]:
    arn = _https(account)["ListenerArn"]
    live = account.ask("elbv2", "describe_listener_certificates", ListenerArn=arn)["Certificates"]
    more = [each["CertificateArn"] for each in live if not each.get("IsDefault")]
    return not more, more or "the default one alone"


def _valid(account: Account) -> tuple[bool, object]:
    arn = _https(account)["Certificates"][0]["CertificateArn"]
    try:
        found = account.ask("acm", "describe_certificate", CertificateArn=arn)["Certificate"]
    except AbsentError as error:
        raise NotAskedError(f"ACM does not keep {arn}") from error
    until = found.get("NotAfter")
    in_time = until is not None and until - datetime.datetime.now(until.tzinfo) > _SOON
    names = [found["DomainName"], *found.get("SubjectAlternativeNames", [])]
    host = account.outputs["TrackingUrl"].removeprefix("https://")
    wildcard = f"*.{host.partition('.')[2]}"
    told = {"Status": found["Status"], "NotAfter": str(until), "names": names}
    return found["Status"] == "ISSUED" and in_time and bool({host, wildcard} & set(names)), told


def _attributes(account: Account) -> tuple[bool, object]:
    answer = account.ask("elbv2", "describe_load_balancer_attributes", LoadBalancerArn=_arn(account))
    live = {each["Key"]: each["Value"] for each in answer["Attributes"]}
    properties = account.only("AWS::ElasticLoadBalancingV2::LoadBalancer").properties
    stated = {each["Key"]: each["Value"] for each in properties["LoadBalancerAttributes"]}
    wrong = {
        key: f"{live.get(key)}, not {value}"
        for key, value in {**stated, **_REQUIRED}.items()
        if not agrees(value, live.get(key))
    }
    return not wrong, wrong or live


def _listener_attributes(account: Account) -> tuple[bool, object]:
    arn = _https(account)["ListenerArn"]
    answer = account.ask("elbv2", "describe_listener_attributes", ListenerArn=arn)
    live = {each["Key"]: each["Value"] for each in answer["Attributes"]}
    properties = account.only("AWS::ElasticLoadBalancingV2::Listener").properties
    stated = {each["Key"]: each["Value"] for each in properties.get("ListenerAttributes", [])}
    told = live.get(_HSTS)
    return told is not None and agrees(stated.get(_HSTS), told), f"Strict-Transport-Security: {told}"


def _scheme(account: Account) -> tuple[bool, object]:
    wanted = account.only("AWS::ElasticLoadBalancingV2::LoadBalancer").properties.get("Scheme")
    live = load_balancer(account)["Scheme"]
    return live == (wanted or "internet-facing"), live


def _targets(account: Account) -> tuple[bool, object]:
    arn = _arn(account)
    groups = account.ask("elbv2", "describe_target_groups", LoadBalancerArn=arn)["TargetGroups"]
    ours = {each.physical_id for each in account.of_type("AWS::ElasticLoadBalancingV2::TargetGroup")}
    alive = {
        each["LoadBalancerArn"] for each in account.ask("elbv2", "describe_load_balancers")["LoadBalancers"]
    }
    told = [(each["TargetGroupArn"], sorted(alive & {*each.get("LoadBalancerArns", [])})) for each in groups]
    return {group for group, _ in told} <= ours and all(leads == [arn] for _, leads in told), told


def _ready(account: Account) -> tuple[bool, object]:
    groups = account.ask("elbv2", "describe_target_groups", LoadBalancerArn=_arn(account))["TargetGroups"]
    paths = [each.get("HealthCheckPath") for each in groups]
    return bool(paths) and set(paths) == {"/ready"}, paths


def _as_deployed(account: Account) -> tuple[bool, object]:
    wanted = {each.physical_id: each.properties for each in account.of_type(_RULE)}
    live = {each["RuleArn"]: each for each in _rules(account) if each["Priority"] != "default"}
    wrong = [
        f"priority {each['Priority']}: {each['Conditions']} → {each['Actions']}"
        for arn, each in live.items()
        if arn not in wanted or not _same_rule(wanted[arn], each)
    ]
    wrong += [f"priority {rule['Priority']} is gone" for arn, rule in wanted.items() if arn not in live]
    return not wrong, wrong or f"{len(live)} rules, in the stack's order"


def _same_rule(wanted: Any, live: Any) -> bool:
    def part(rule: Any, key: str) -> list[Any]:
        return [{name: each[name] for name in each if name != "Order"} for each in rule[key]]

    def order(rule: Any) -> list[str]:
        actions = sorted(enumerate(rule["Actions"]), key=lambda each: each[1].get("Order", each[0]))
        return [action["Type"] for _, action in actions]

    return (
        agrees(wanted["Priority"], live["Priority"])
        and order(wanted) == order(live)
        and agrees(part(wanted, "Conditions"), live["Conditions"])
        and agrees(part(wanted, "Actions"), live["Actions"])
        and not live.get("Transforms")
    )


def _issuers(account: Account) -> tuple[bool, object]:
    """This account's own for any token, and others' that the deployment trusts."""
    checks = {
        each["Priority"]: action["JwtValidationConfig"]
        for each in _rules(account)
        for action in each["Actions"]
        if "JwtValidationConfig" in action
    }
    stated = [action for each in account.of_type(_RULE) for action in each.properties["Actions"]]
    if not any(action["Type"] == "jwt-validation" for action in stated):
        raise NotAskedError("identity.edge_jwt_check is off: the server alone checks tokens")
    issuers = {priority: each["Issuer"] for priority, each in checks.items()}
    return (
        issuers.pop("10", None) == account.outputs["TokenIssuer"]
        and {*issuers.values()} == {*account.outputs.get("TrustedIssuers", "").split()}
        and all(_only_for(each, account.outputs["TokenAudience"]) for each in checks.values())
    ), checks


def _only_for(check: Mapping[str, Any], audience: str) -> bool:
    claims = [(each["Name"], each["Format"], each["Values"]) for each in check.get("AdditionalClaims") or []]
    return (
        claims == [("aud", "single-string", [audience])]
        and check["JwksEndpoint"] == f"{check['Issuer']}/.well-known/jwks.json"
    )


def _otherwise(account: Account) -> tuple[bool, object]:
    told = {
        each["Priority"]: action["AuthenticateCognitoConfig"].get("OnUnauthenticatedRequest")
        for each in _rules(account)
        for action in each["Actions"]
        if action["Type"] == "authenticate-cognito"
    }
    return told == {"20": "deny", "30": "authenticate"}, told


def _sessions(account: Account) -> tuple[bool, object]:
    pool, client = account.outputs["UserPoolId"], account.outputs["UserPoolClientId"]
    told = [
        (
            each["AuthenticateCognitoConfig"]["UserPoolArn"],
            each["AuthenticateCognitoConfig"]["UserPoolClientId"],
        )
        for rule in _rules(account)
        for each in rule["Actions"]
        if each["Type"] == "authenticate-cognito"
    ]
    return all(arn.endswith(f"/{pool}") and at == client for arn, at in told), told


def _identified(account: Account) -> tuple[bool, object]:
    unchecked = {
        each.physical_id
        for each in account.of_type(_RULE)
        if each.properties["Actions"][0]["Type"] == "forward"
    }
    open_rules = [
        each["Priority"]
        for each in _rules(account)
        if not each.get("IsDefault", each["Priority"] == "default")
        and each["RuleArn"] not in unchecked
        and min(each["Actions"], key=lambda action: action.get("Order", 0))["Type"] not in _IDENTIFYING
    ]
    return not open_rules, open_rules or "every rule identifies the caller first"


def _default(account: Account) -> tuple[bool, object]:
    actions = [each["Actions"] for each in _rules(account) if each["Priority"] == "default"]
    told = [(each["Type"], each.get("FixedResponseConfig", {}).get("StatusCode")) for each in actions[0]]
    return told == [("fixed-response", "401")], told


CHECKS = (
    Check(
        "the only listener is HTTPS on 443, TLS 1.3 only",
        _listeners,
        f"delete any other listener; aws elbv2 modify-listener --ssl-policy {_TLS}",
    ),
    Check(
        "the listener has the stack's certificate",
        _certificates,
        "aws elbv2 modify-listener --certificates with the stack's",
    ),
    Check(
        "the listener has no other certificate",
        _more_certificates,
        "aws elbv2 remove-listener-certificates",
    ),
    Check(
        "the certificate is issued, for this host, and valid for 14 days or more",
        _valid,
        "look at the certificate's validation records and renewal in ACM",
    ),
    Check(
        "the load balancer drops invalid headers, writes access logs, and is set as the stack says",
        _attributes,
        "aws elbv2 modify-load-balancer-attributes",
    ),
    Check(
        "every answer tells browsers to come back over TLS only",
        _listener_attributes,
        f"aws elbv2 modify-listener-attributes --attributes Key={_HSTS},Value=…",
    ),
    Check(
        "the load balancer is internal or internet-facing as the stack says",
        _scheme,
        "deploy: the scheme cannot be changed by hand",
    ),
    Check(
        "the load balancer leads to the stack's targets, and nothing else does",
        _targets,
        "delete the other load balancer's listener, or the other target group",
    ),
    Check(
        "targets are healthy when /ready says so",
        _ready,
        "aws elbv2 modify-target-group --health-check-path /ready",
    ),
    Check(
        "the listener's rules are the stack's, in their order, and no other",
        _as_deployed,
        "aws elbv2 delete-rule, modify-rule or set-rule-priorities",
    ),
    Check(
        "the load balancer checks a token's issuer, and that it is for this deployment",
        _issuers,
        "restore the rule: issuer and audience are in the stack's outputs",
    ),
    Check(
        "without a session, a page's calls are refused and a page's visitors sent to sign in",
        _otherwise,
        "restore the rules: 20 deny, 30 authenticate",
    ),
    Check(
        "people's sessions are the user pool's",
        _sessions,
        "restore the rules: pool and client of the outputs",
    ),
    Check(
        "every rule identifies the caller first", _identified, "delete the rule, or put the check before it"
    ),
    Check(
        "what matches no rule gets 401",
        _default,
        "aws elbv2 modify-listener with a default action of fixed-response 401",
    ),
)
