"""Each misconfiguration of an account turns a probe red or yellow before anything is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from findings.finding import AccountFinding, Mark
from preflight.__main__ import ACTIONS, policy
from preflight.deployment import BOOTSTRAP_VERSION, _processor
from preflight.look import PROBES, look
from stacks.config import EnvironmentConfig
from stacks.config_file import CONFIG, load_environment
from tests.preflight.answers import ACCOUNT, REGION, Replies, fresh, subject

ARN = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/x"
GITHUB = {"name": "taken", "role": "viewer", "repository": "owner/name", "branch": "main"}
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
REPLICA = {"bucket_arn": "arn:aws:s3:::replicas", "key_arn": KEY.replace(REGION, "eu-west-1")}


def environment(name: str = "dev", **sections: dict[str, Any] | str) -> EnvironmentConfig:
    """A file of config/ with other values."""
    values = load_environment(name=name, path=None, directory=CONFIG).model_dump(exclude_unset=True)
    for section, changed in sections.items():
        if isinstance(changed, dict):
            values[section] = {**values.get(section, {}), **changed}
        else:
            values[section] = changed
    return EnvironmentConfig.model_validate(values)


EVERYTHING = environment(
    "prod",
    network={"transit_gateway_id": "tgw-1", "routed_cidrs": ("10.0.0.0/16",)},
    ingress={"certificate_arn": ARN},
    identity={"domain_prefix": "models", "github": ({**GITHUB, "name": "free"},)},
    server={
        "image_uri": "registry.example.com/m:1",
        "registry_secret_arn": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:r-AbCdEf",
    },
    artifacts={"object_lock": {"mode": "governance", "years": 7}, "sealed_replica": REPLICA},
    log_key_arn=KEY,
    permissions_boundary="boundary",
)


def found(replies: Replies, wanted: EnvironmentConfig | None = None) -> list[AccountFinding]:
    chosen = wanted or environment()
    return look(subject(chosen, {**fresh(str(chosen.ingress.hosted_zone_name)), **replies}))


def marked(findings: list[AccountFinding], mark: Mark) -> list[str]:
    return [each.title for each in findings if each.mark is mark]


def stack(status: str) -> dict[str, Any]:
    return {"Stacks": [{"StackName": "s", "StackStatus": status, "CreationTime": "2026-01-01"}]}


def quota(value: float) -> dict[str, Any]:
    return {"Quota": {"Value": value}}


DENIED_BY_SCP = {
    "EvaluationResults": [
        {
            "EvalActionName": "iam:x",
            "EvalDecision": "implicitDeny",
            "OrganizationsDecisionDetail": {"AllowedByOrganizations": False},
        }
    ]
}
NO_ROLE: Replies = {
    ("iam", "GetRole"): lambda params: (
        fresh()["iam", "GetRole"](params) if params["RoleName"] == "deploy" else "NoSuchEntity"  # type: ignore[operator]
    )
}

BROKEN: dict[str, tuple[Replies, EnvironmentConfig | None, Mark, str]] = {
    "region off": (
        {("ec2", "DescribeRegions"): {"Regions": [{"RegionName": REGION, "OptInStatus": "not-opted-in"}]}},
        None,
        Mark.BAD,
        "the region is on",
    ),
    "no bootstrap": ({("ssm", "GetParameter"): "ParameterNotFound"}, None, Mark.BAD, "bootstrapped"),
    "old bootstrap": (
        {("ssm", "GetParameter"): {"Parameter": {"Value": "5"}}},
        None,
        Mark.BAD,
        "bootstrapped",
    ),
    "first deployment failed": (
        {("cloudformation", "DescribeStacks"): stack("ROLLBACK_COMPLETE")},
        None,
        Mark.WARNING,
        "stacks are ready",
    ),
    "another deployment": (
        {("cloudformation", "DescribeStacks"): stack("UPDATE_IN_PROGRESS")},
        None,
        Mark.BAD,
        "stacks are ready",
    ),
    "no bucket for replicas": (
        {("s3", "GetBucketVersioning"): "NoSuchBucket"},
        environment(artifacts={"sealed_replica": REPLICA}),
        Mark.BAD,
        "copies of what is sealed",
    ),
    "replicas without versions": (
        {("s3", "GetBucketVersioning"): {"Status": "Suspended"}},
        environment(artifacts={"sealed_replica": REPLICA}),
        Mark.BAD,
        "copies of what is sealed",
    ),
    "replicas without a lock": (
        {("s3", "GetObjectLockConfiguration"): "ObjectLockConfigurationNotFoundError"},
        EVERYTHING,
        Mark.BAD,
        "copies of what is sealed",
    ),
    "no zone": ({("route53", "GetHostedZone"): "NoSuchHostedZone"}, None, Mark.BAD, "hosted zone"),
    "private zone": (
        {
            ("route53", "GetHostedZone"): {
                "HostedZone": {
                    "Id": "/hostedzone/Z1",
                    "Name": "dev.example.com.",
                    "CallerReference": "x",
                    "Config": {"PrivateZone": True},
                }
            }
        },
        None,
        Mark.BAD,
        "hosted zone",
    ),
    "another zone": (
        {
            ("route53", "GetHostedZone"): {
                "HostedZone": {"Id": "/hostedzone/Z1", "Name": "example.org.", "CallerReference": "x"}
            }
        },
        None,
        Mark.BAD,
        "hosted zone",
    ),
    "certificate pending": (
        {
            ("acm", "DescribeCertificate"): {
                "Certificate": {"Status": "PENDING_VALIDATION", "DomainName": "x"}
            }
        },
        environment(ingress={"certificate_arn": ARN}),
        Mark.BAD,
        "certificate",
    ),
    "certificate of another host": (
        {("acm", "DescribeCertificate"): {"Certificate": {"Status": "ISSUED", "DomainName": "example.org"}}},
        environment(ingress={"certificate_arn": ARN}),
        Mark.BAD,
        "certificate",
    ),
    "certificate elsewhere": (
        {},
        environment(ingress={"certificate_arn": ARN.replace(REGION, "us-east-1")}),
        Mark.BAD,
        "certificate",
    ),
    "no VPC left": (
        {("service-quotas", "GetServiceQuota"): quota(1)},
        None,
        Mark.BAD,
        "room for more VPCs",
    ),
    "no address left": (
        {("service-quotas", "GetServiceQuota"): quota(2)},
        environment("prod"),
        Mark.BAD,
        "room for more Elastic IP addresses",
    ),
    "zone not there": (
        {},
        environment(network={"zone_names": (f"{REGION}a", f"{REGION}f")}),
        Mark.BAD,
        "zones are available",
    ),
    "range taken": (
        {("ec2", "DescribeVpcs"): {"Vpcs": [{"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/8"}]}},
        None,
        Mark.WARNING,
        "address range",
    ),
    "peering not accepted": (
        {
            ("ec2", "DescribeVpcPeeringConnections"): {
                "VpcPeeringConnections": [{"Status": {"Code": "pending-acceptance"}}]
            }
        },
        environment(network={"peering_connection_id": "pcx-1", "routed_cidrs": ("10.0.0.0/16",)}),
        Mark.BAD,
        "network of clients",
    ),
    "class not offered": (
        {("rds", "DescribeOrderableDBInstanceOptions"): {"OrderableDBInstanceOptions": []}},
        None,
        Mark.BAD,
        "class and version",
    ),
    "class not in every zone": (
        {
            ("rds", "DescribeOrderableDBInstanceOptions"): {
                "OrderableDBInstanceOptions": [
                    {"EngineVersion": "18.1", "AvailabilityZones": [{"Name": f"{REGION}a"}]}
                ]
            }
        },
        environment("prod"),
        Mark.BAD,
        "class and version",
    ),
    "federation forbidden": (
        {
            ("iam", "GetOutboundWebIdentityFederationInfo"): "FeatureDisabled",
            ("iam", "SimulatePrincipalPolicy"): DENIED_BY_SCP,
        },
        None,
        Mark.BAD,
        "federation",
    ),
    "service-linked roles forbidden": (
        {**NO_ROLE, ("iam", "SimulatePrincipalPolicy"): DENIED_BY_SCP},
        None,
        Mark.BAD,
        "service-linked",
    ),
    "named provider missing": (
        {},
        environment(
            identity={
                "github": ({**GITHUB, "name": "free"},),
                "github_provider_arn": PROVIDER,
            }
        ),
        Mark.BAD,
        "OIDC provider",
    ),
    "prefix taken": (
        {
            ("cognito-idp", "DescribeUserPoolDomain"): {
                "DomainDescription": {"UserPoolId": "eu-central-1_x", "AWSAccountId": "4"}
            }
        },
        environment(identity={"domain_prefix": "models"}),
        Mark.BAD,
        "host name is free",
    ),
    "role taken": ({}, environment(identity={"github": (GITHUB,)}), Mark.BAD, "ready-made roles"),
    "key disabled": (
        {("kms", "DescribeKey"): {"KeyMetadata": {"KeyId": "k", "KeyState": "PendingDeletion"}}},
        environment(log_key_arn=KEY),
        Mark.BAD,
        "refers to",
    ),
    "no Docker": ({}, environment(server={"build": "local"}), Mark.BAD, "image can be built"),
}


@pytest.mark.parametrize(("replies", "wanted", "mark", "title"), BROKEN.values(), ids=BROKEN)
def test_a_misconfiguration_is_seen_before_anything_is_made(
    replies: Replies,
    wanted: EnvironmentConfig | None,
    mark: Mark,
    title: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = found(replies, wanted)
    seen = [each for each in findings if title in each.title]
    assert [each.mark for each in seen] == [mark], seen
    assert all(each.remedy for each in seen)
    assert [each for each in marked(findings, Mark.BAD) if title not in each] == []


@pytest.mark.parametrize("wanted", [environment(), environment("prod"), EVERYTHING])
def test_an_account_as_it_should_be_passes(wanted: EnvironmentConfig) -> None:
    findings = found({}, wanted)
    assert marked(findings, Mark.BAD) == []
    # Nobody but the parent zone knows whether it delegates.
    assert set(marked(findings, Mark.WARNING)) <= {"the hosted zone exists, and is public"}


def test_a_denied_question_is_a_warning_that_names_the_action_and_the_rest_goes_on() -> None:
    findings = found({("ssm", "GetParameter"): "AccessDeniedException"})
    (warned,) = [each for each in findings if "bootstrapped" in each.title]
    assert (warned.mark, warned.observed) == (Mark.WARNING, "denied: ssm:GetParameter")
    assert len(findings) == len(found({}))


def test_what_is_deployed_already_needs_no_more_room() -> None:
    findings = found(
        {
            ("cloudformation", "DescribeStacks"): stack("UPDATE_COMPLETE"),
            ("service-quotas", "GetServiceQuota"): quota(1),
        }
    )
    assert marked(findings, Mark.BAD) == []


def test_a_role_of_the_foundation_is_not_taken() -> None:
    resource = {
        "StackName": "MlflowOnAws-dev-Foundation",
        "LogicalResourceId": "r",
        "ResourceType": "AWS::IAM::Role",
        "Timestamp": "2026-01-01",
        "ResourceStatus": "CREATE_COMPLETE",
    }
    replies: Replies = {("cloudformation", "DescribeStackResources"): {"StackResources": [resource]}}
    assert marked(found(replies, environment(identity={"github": (GITHUB,)})), Mark.BAD) == []


def test_another_processor_needs_an_emulator(tmp_path: Path) -> None:
    assert _processor("aarch64", "arm64")[0] is Mark.GOOD
    assert _processor("x86_64", "arm64", tmp_path)[0] is Mark.BAD
    (tmp_path / "qemu-aarch64").touch()
    assert _processor("x86_64", "arm64", tmp_path)[0] is Mark.GOOD


def test_the_policy_holds_what_is_asked_and_no_more() -> None:
    asked: set[str] = set()
    peered = environment(network={"peering_connection_id": "pcx-1", "routed_cidrs": ("10.0.0.0/16",)})
    refused: Replies = {("iam", "GetOutboundWebIdentityFederationInfo"): "FeatureDisabled"}
    taken = environment(identity={"github": (GITHUB,)})
    for wanted, replies in ((EVERYTHING, fresh()), (peered, fresh() | refused), (taken, fresh())):
        account = subject(wanted, replies)
        look(account)
        asked |= account.reader.actions
    assert asked == set(ACTIONS)
    assert json.loads(policy())["Statement"][0]["Action"] == list(ACTIONS)


def test_every_probe_has_a_title_of_its_own() -> None:
    assert len({each.title for each in PROBES}) == len(PROBES)
    assert BOOTSTRAP_VERSION >= 6
