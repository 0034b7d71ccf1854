"""Reads the deployed load balancer from the ELBv2 API, for the process that stands in for it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local.parts.aws import Aws

Snapshot = dict[str, Any]
_LISTENER_FIELDS = ("ListenerArn", "LoadBalancerArn", "Port", "Protocol", "SslPolicy")


def take(aws: Aws, load_balancer_arn: str, addresses: Mapping[str, str]) -> Snapshot:
    """Describe the load balancer: its listener, rules, target groups, and where each target really listens.

    `addresses` maps `address:port` in the VPC to `host:port` on this machine; a target without an entry has
    just ended and is left out.
    """
    elb = aws.client("elbv2")
    listeners = elb.describe_listeners(LoadBalancerArn=load_balancer_arn)["Listeners"]
    if len(listeners) != 1:
        raise ValueError(f"{load_balancer_arn} has {len(listeners)} listeners where one is expected")
    listener = listeners[0]
    attributes = elb.describe_load_balancer_attributes(LoadBalancerArn=load_balancer_arn)["Attributes"]
    attributes += elb.describe_listener_attributes(ListenerArn=listener["ListenerArn"])["Attributes"]
    groups = elb.describe_target_groups(LoadBalancerArn=load_balancer_arn)["TargetGroups"]
    rules = elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]
    return {
        "listener": {key: listener[key] for key in _LISTENER_FIELDS},
        "certificates": [each["CertificateArn"] for each in listener.get("Certificates", [])],
        "rules": rules,
        "client_secrets": _client_secrets(aws, rules),
        "attributes": {each["Key"]: each["Value"] for each in attributes},
        "target_groups": {group["TargetGroupArn"]: _group(elb, group, addresses) for group in groups},
    }


def _group(elb: Any, group: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any]:
    health = elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])["TargetHealthDescriptions"]
    registered = [f"{each['Target']['Id']}:{each['Target']['Port']}" for each in health]
    kept = ("HealthCheckPath", "HealthCheckIntervalSeconds", "HealthCheckTimeoutSeconds")
    return {
        **{key: group[key] for key in (*kept, "HealthyThresholdCount", "UnhealthyThresholdCount", "Matcher")},
        "targets": {target: addresses[target] for target in registered if target in addresses},
    }


def _client_secrets(aws: Aws, rules: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The secrets of the app clients in the rules; ELB reads them as the creator of the rule may."""
    configs = (
        action["AuthenticateCognitoConfig"]
        for rule in rules
        for action in rule["Actions"]
        if "AuthenticateCognitoConfig" in action
    )
    pools = {each["UserPoolClientId"]: each["UserPoolArn"].rpartition("/")[2] for each in configs}
    cognito = aws.client("cognito-idp")
    described = {
        client: cognito.describe_user_pool_client(UserPoolId=pool, ClientId=client)["UserPoolClient"]
        for client, pool in pools.items()
    }
    return {client: str(each.get("ClientSecret", "")) for client, each in described.items()}


def write_if_changed(file: Path, taken: Snapshot) -> bool:
    """Write a snapshot for the balancer's process if it has changed; returns whether it has.

    Only its owner may read it, since it holds secrets.
    """
    text = json.dumps(taken, indent=1, sort_keys=True, default=str)
    if file.exists() and file.read_text() == text:
        return False
    temporary = file.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(text)
    temporary.replace(file)
    return True
