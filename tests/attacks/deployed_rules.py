"""The load balancer's listener as the stacks deploy it, with the issuers of these tests in its rules."""

from __future__ import annotations

from typing import Any

AUDIENCE = "https://mlflow.example.com"
GROUP = "arn:group"
LOAD_BALANCER = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/mlflow/1"


def snapshot(
    *, token_issuer: str, partner: str, pool_arn: str, client_id: str, client_secret: str, target: str
) -> dict[str, Any]:
    """What `local.edge.snapshot` would write for the deployed listener in front of `target`.

    `partner` is the issuer of a second account.
    """
    default, rules = _synthesized(partner)
    for rule in rules:
        rule["Priority"] = str(rule["Priority"])
        for action in rule["Actions"]:
            if "JwtValidationConfig" in action:
                validation = action["JwtValidationConfig"]
                # Known only when deployed; tests/stacks checks where they come from.
                assert set(validation) == {"Issuer", "JwksEndpoint", "AdditionalClaims"}
                if validation["Issuer"] != partner:
                    validation["Issuer"] = token_issuer
                    validation["JwksEndpoint"] = f"{token_issuer}/.well-known/jwks.json"
            if "AuthenticateCognitoConfig" in action:
                action["AuthenticateCognitoConfig"] |= {
                    "UserPoolArn": pool_arn,
                    "UserPoolClientId": client_id,
                }
            if "TargetGroupArn" in action:
                action["TargetGroupArn"] = GROUP
    return {
        "listener": {"Protocol": "HTTPS", "SslPolicy": "ELBSecurityPolicy-TLS13-1-3-2021-06", "Port": 443},
        "rules": [*rules, {"Priority": "default", "Actions": default}],
        "attributes": {"routing.http.drop_invalid_header_fields.enabled": "true"},
        "client_secrets": {client_id: client_secret},
        "target_groups": {
            GROUP: {
                "HealthCheckPath": "/ready",
                "HealthCheckIntervalSeconds": 20,
                "HealthCheckTimeoutSeconds": 10,
                "HealthyThresholdCount": 2,
                "UnhealthyThresholdCount": 10,
                "Matcher": {"HttpCode": "200"},
                "targets": {"10.0.0.1:5000": target},
            }
        },
    }


def _synthesized(partner: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    import aws_cdk as cdk
    from aws_cdk import aws_ec2 as ec2
    from aws_cdk import aws_elasticloadbalancingv2 as elb

    from stacks.foundation.user_directory import UserDirectory
    from stacks.identity_config import IdentityConfig
    from stacks.service.listener_rules import ListenerRules, refuse
    from stacks.service.sign_in import SignIn

    stack = cdk.Stack(cdk.App(), "Attacked")
    vpc = ec2.Vpc.from_vpc_attributes(
        stack, "Vpc", vpc_id="vpc-0aaaaaaaaaaaaaaaa", availability_zones=["a", "b"]
    )
    config = IdentityConfig()
    people = UserDirectory(stack, "People", url="https://mlflow.example.com", config=config)
    load_balancer = elb.ApplicationLoadBalancer.from_application_load_balancer_attributes(
        stack, "LoadBalancer", load_balancer_arn=LOAD_BALANCER, security_group_id="sg-1", vpc=vpc
    )
    listener = elb.ApplicationListener(
        stack,
        "Listener",
        load_balancer=load_balancer,
        port=443,
        certificates=[elb.ListenerCertificate("arn:certificate")],
        default_action=refuse(),
        open=False,
    )
    ListenerRules(
        stack,
        "Rules",
        listener=listener,
        target_group=elb.ApplicationTargetGroup(
            stack,
            "Targets",
            vpc=vpc,
            port=5000,
            protocol=elb.ApplicationProtocol.HTTP,
            target_type=elb.TargetType.IP,
        ),
        sign_in=SignIn(stack, "SignIn", people=people, url=AUDIENCE, config=config),
        token_issuer="https://issuer.example.com",
        token_audience=AUDIENCE,
        trusted_issuers=[partner],
        edge_jwt_check=True,
    )
    template = cdk.assertions.Template.from_stack(stack)

    def found(kind: str) -> list[dict[str, Any]]:
        return [
            each["Properties"]
            for each in template.find_resources(f"AWS::ElasticLoadBalancingV2::{kind}").values()
        ]

    [listener_properties] = found("Listener")
    return listener_properties["DefaultActions"], found("ListenerRule")
