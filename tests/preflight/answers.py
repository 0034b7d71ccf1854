"""An account whose answers are written down, each checked against AWS's own description of the service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import boto3
from botocore.validate import validate_parameters

from findings.reader import AccountReader
from preflight.credentials import Deployer
from preflight.subject import Subject
from stacks.config import EnvironmentConfig

ACCOUNT, REGION = "111122223333", "eu-central-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/path/deploy"
# An error is its code; a function gets the question's parameters.
Reply = dict[str, Any] | str | Callable[[Mapping[str, Any]], "dict[str, Any] | str"]
Replies = dict[tuple[str, str], Reply]


@cache
def _client(service: str) -> Any:
    """A client without a network; making one takes long."""
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url="http://127.0.0.1:1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )


@dataclass
class AnsweringAccount:
    """Clients that answer from `replies` and reach no network."""

    replies: Replies = field(default_factory=dict)

    def __call__(self, service: str) -> Any:
        client = _client(service)
        client.meta.events.unregister("before-call", unique_id="answers")
        client.meta.events.register("before-call", self._answer, unique_id="answers")
        return client

    def _answer(self, model: Any, params: Mapping[str, Any], **_: Any) -> Any:
        service, operation = model.service_model.service_name, model.name
        reply = self.replies[(service, operation)]
        if callable(reply):
            # The serialized request: its body has the parameters.
            reply = reply(params["body"] if isinstance(params.get("body"), dict) else {})
        if isinstance(reply, str):
            error = {"Error": {"Code": reply, "Message": "as written"}, "ResponseMetadata": {}}
            return _Status(400), error
        # The names and types of a stubbed response are those of the model, or this fails.
        validate_parameters(reply, model.output_shape)
        return _Status(200), {**reply, "ResponseMetadata": {}}


@dataclass
class _Status:
    status_code: int


def subject(environment: EnvironmentConfig, replies: Replies) -> Subject:
    """A deployment of this environment to an account with these answers."""
    deployer = Deployer(f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/me", ACCOUNT, REGION)
    return Subject("dev", environment, deployer, AccountReader(AnsweringAccount(replies)))


def _role(params: Mapping[str, Any]) -> dict[str, Any] | str:
    name = params["RoleName"]
    if name == "taken" or name.startswith("AWSServiceRole") or name == "deploy":
        arn = ROLE if name == "deploy" else f"arn:aws:iam::{ACCOUNT}:role/{name}"
        document: dict[str, Any] = {"Path": "/", "RoleName": name, "RoleId": "AROAEXAMPLEEXAMPLE", "Arn": arn}
        return {"Role": {**document, "CreateDate": "2026-01-01"}}
    return "NoSuchEntity"


def fresh(zone: str = "dev.example.com") -> Replies:
    """A new account, bootstrapped, in which everything is as a deployment needs it."""
    zones = [f"{REGION}{letter}" for letter in "abc"]
    offered = [{"Name": zone} for zone in zones]
    return {
        ("ec2", "DescribeRegions"): {
            "Regions": [{"RegionName": REGION, "OptInStatus": "opt-in-not-required"}]
        },
        ("ssm", "GetParameter"): {"Parameter": {"Value": "30"}},
        ("cloudformation", "DescribeStacks"): "ValidationError",
        ("cloudformation", "DescribeStackResources"): "ValidationError",
        ("route53", "GetHostedZone"): {
            "HostedZone": {"Id": "/hostedzone/Z1", "Name": f"{zone}.", "CallerReference": "x"},
            "DelegationSet": {"NameServers": ["ns-1.example.org"]},
        },
        ("acm", "DescribeCertificate"): {"Certificate": {"Status": "ISSUED", "DomainName": f"*.{zone}"}},
        ("ec2", "DescribeVpcs"): {"Vpcs": [{"VpcId": "vpc-1", "CidrBlock": "172.31.0.0/16"}]},
        ("ec2", "DescribeAddresses"): {"Addresses": []},
        ("ec2", "DescribeNatGateways"): {"NatGateways": []},
        ("ec2", "DescribeSubnets"): {"Subnets": []},
        ("ec2", "DescribeAvailabilityZones"): {
            "AvailabilityZones": [{"ZoneName": zone, "State": "available"} for zone in zones]
        },
        ("ec2", "DescribeTransitGateways"): {"TransitGateways": [{"State": "available"}]},
        ("ec2", "DescribeVpcPeeringConnections"): {"VpcPeeringConnections": [{"Status": {"Code": "active"}}]},
        ("elbv2", "DescribeLoadBalancers"): {"LoadBalancers": []},
        ("rds", "DescribeDBInstances"): {"DBInstances": []},
        ("rds", "DescribeOrderableDBInstanceOptions"): {
            "OrderableDBInstanceOptions": [{"EngineVersion": "18.1", "AvailabilityZones": offered}]
        },
        ("service-quotas", "GetServiceQuota"): {"Quota": {"Value": 5.0}},
        ("iam", "GetOutboundWebIdentityFederationInfo"): {
            "JwtVendingEnabled": True,
            "IssuerIdentifier": "https://issuer.example.com",
        },
        ("iam", "GetRole"): _role,
        ("iam", "GetPolicy"): {"Policy": {"PolicyName": "boundary"}},
        ("iam", "ListOpenIDConnectProviders"): {"OpenIDConnectProviderList": []},
        ("iam", "SimulatePrincipalPolicy"): {
            "EvaluationResults": [{"EvalActionName": "iam:x", "EvalDecision": "allowed"}]
        },
        ("cognito-idp", "DescribeUserPoolDomain"): {"DomainDescription": {}},
        ("kms", "DescribeKey"): {"KeyMetadata": {"KeyId": "k", "KeyState": "Enabled"}},
        ("s3", "GetBucketVersioning"): {"Status": "Enabled"},
        ("s3", "GetObjectLockConfiguration"): {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}},
        ("secretsmanager", "DescribeSecret"): {"Name": "secret"},
    }
