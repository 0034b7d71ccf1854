"""Each environment is synthesized once: starting the CDK takes seconds."""

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks

from stacks.config import EnvironmentConfig
from stacks.foundation.stack import MlflowFoundation
from stacks.recovery.stack import MlflowRecovery, recovery_of
from stacks.service.stack import MlflowService
from tests.stacks.templates import Assembly, Template

ROOT = Path(__file__).parents[2]

EXISTING_VPC = {
    "vpc_id": "vpc-0aaaaaaaaaaaaaaaa",
    "availability_zones": ["eu-central-1a", "eu-central-1b"],
    "public_subnet_ids": ["subnet-0aaaaaaaaaaaaaaa1", "subnet-0aaaaaaaaaaaaaaa2"],
    "private_subnet_ids": ["subnet-0bbbbbbbbbbbbbbb1", "subnet-0bbbbbbbbbbbbbbb2"],
    "isolated_subnet_ids": ["subnet-0ccccccccccccccc1", "subnet-0ccccccccccccccc2"],
}
GITHUB_PROVIDER = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com"
GITHUB_ROLES: list[dict[str, Any]] = [
    {"name": "mlflow-train", "role": "contributor", "repository": "example/models", "branch": "main"},
    {
        "name": "mlflow-release",
        "role": "approver",
        "repository": "example@17/models@42",
        "environment": "production",
    },
    {
        "name": "mlflow-deploy",
        "role": "contributor",
        "repository": "example/platform",
        "environment": "prod",
        "deploys": True,
    },
]
CLUSTER_ISSUER = "oidc.eks.eu-north-1.amazonaws.com/id/A1"
EKS_ROLES = [
    {
        "name": "mlflow-irsa",
        "role": "viewer",
        "namespace": "ml",
        "service_account": "report",
        "oidc_provider_arn": f"arn:aws:iam::111122223333:oidc-provider/{CLUSTER_ISSUER}",
    },
    {
        "name": "mlflow-pod",
        "role": "contributor",
        "namespace": "ml",
        "service_account": "train",
        "cluster_arn": "arn:aws:eks:eu-central-1:111122223333:cluster/ml",
    },
]
IDENTITY = {
    "session_hours": 10,
    "domain_prefix": "mlflow-company",
    "trusted_issuers": [
        {"account": "222233334444", "issuer": "https://a1d2b0fd-1177.tokens.sts.global.api.aws"}
    ],
    "roles": {
        "viewer": {"iam_roles": ["arn:aws:iam::222233334444:role/analysts"]},
        "contributor": {"iam_roles": ["arn:aws:iam::111122223333:role/data-science/*"]},
        "approver": {"iam_roles": ["arn:aws:iam::111122223333:role/release"], "groups": ["release-board"]},
    },
    "saml": {"name": "Company", "metadata_url": "https://idp.example.com/metadata", "everyone": "viewer"},
    "oidc": {
        "name": "Partner",
        "issuer": "https://login.example.com",
        "client_id": "mlflow",
        "client_secret_name": "mlflow/partner-sign-in",
    },
    "github": GITHUB_ROLES,
    "eks": EKS_ROLES,
}
BREAK_GLASS = "arn:aws:iam::111122223333:role/break-glass"
OBJECT_LOCK = {"mode": "governance", "years": 7}
REPLICA = {
    "bucket_arn": "arn:aws:s3:::company-replicas",
    "key_arn": "arn:aws:kms:eu-west-1:222233334444:key/00000000-0000-0000-0000-000000000009",
    "account": "222233334444",
}
COST = {"emails": ["finance@example.com"], "monthly_budget_usd": 900, "anomaly_usd": 50}
TOPIC = "arn:aws:sns:eu-central-1:111122223333:models"
CHAT = "arn:aws:sns:eu-central-1:111122223333:chat"
EVENTS = {
    "topics": [{"arn": TOPIC}, {"arn": CHAT, "types": ["Model Alias Set"], "format": "chat"}],
    "github": [{"repository": "example/models", "token_secret_name": "mlflow/github"}],
}
BACKUP = {
    "days": 400,
    "lock": {"mode": "compliance", "min_days": 14, "max_days": 500},
    "recovery": {"region": "eu-west-1", "days": 60},
}
# What prod's instance has and a cluster has not is removed.
AURORA = {
    "engine": "aurora",
    "instance_class": "r7g.large",
    "readers": 2,
    "storage_type": "aurora-iopt1",
    **dict.fromkeys(("storage_gib", "max_storage_gib", "multi_az")),
}
CERTIFICATE = "arn:aws:acm:eu-central-1:111122223333:certificate/00000000-0000-0000-0000-000000000000"
IMAGE = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/mlflow@sha256:" + "0" * 64


def read_config(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "config" / f"{name}.toml").read_text())


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, table by table; None removes a key."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = merged(result.get(key, {}), value)
        else:
            result[key] = value
    return result


def stacks_of(
    app: cdk.App, config: EnvironmentConfig, *, name: str
) -> tuple[MlflowFoundation, MlflowService, MlflowRecovery | None]:
    recovery = recovery_of(app, f"MlflowOnAws-{name}-Recovery", environment=config)
    foundation = MlflowFoundation(
        app, f"MlflowOnAws-{name}-Foundation", environment=config, recovery=recovery
    )
    service = MlflowService(app, f"MlflowOnAws-{name}-Service", environment=config, foundation=foundation)
    return foundation, service, recovery


def synthesize(config: EnvironmentConfig, *, name: str, directory: Path) -> Assembly:
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = cdk.App(outdir=str(directory), context=flags)
    foundation, service, recovery = stacks_of(app, config, name=name)
    app.synth()
    report = AwsSolutionsChecks(app).validate_scope(app)
    manifest = json.loads((directory / "manifest.json").read_text())
    return Assembly(
        foundation=Template.read(directory / f"{foundation.stack_name}.template.json"),
        service=Template.read(directory / f"{service.stack_name}.template.json"),
        recovery=Template.read(directory / f"{recovery.stack_name}.template.json") if recovery else None,
        findings=tuple(
            f"{violation.rule_name} {resource.construct_path}"
            for violation in report.violations
            for resource in violation.violating_resources
        ),
        acknowledged={
            rule: reason
            for construct in app.node.find_all()
            for entry in construct.node.metadata
            if entry.type == cdk.Validations.ACKNOWLEDGED_RULES_METADATA_KEY
            for rule, reason in entry.data.items()
            if "AwsSolutions" in rule  # the CDK acknowledges findings of its own rules about its own output
        },
        warnings=tuple(
            str(message.entry.data)
            for stack in (foundation, service)
            for message in cdk.assertions.Annotations.from_stack(stack).find_warning(
                "*", cdk.assertions.Match.any_value()
            )
        ),
        manifest=manifest,
        app=app,
    )


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Assembly]:
    """Synthesize one of config/*.toml with changes laid over it."""

    def build(name: str, changes: Mapping[str, Any] | None = None) -> Assembly:
        config = EnvironmentConfig.model_validate(merged(read_config(name), changes or {}))
        return synthesize(config, name=name, directory=tmp_path_factory.mktemp(name))

    return build


@pytest.fixture(scope="session")
def dev(build: Callable[..., Assembly]) -> Assembly:
    return build("dev")


@pytest.fixture(scope="session")
def prod(build: Callable[..., Assembly]) -> Assembly:
    return build("prod")


@pytest.fixture(scope="session", params=["dev", "prod"])
def either(request: pytest.FixtureRequest) -> Assembly:
    """Whatever the environment: what must hold in both."""
    assembly: Assembly = request.getfixturevalue(request.param)
    return assembly


@pytest.fixture(scope="session")
def given(build: Callable[..., Assembly]) -> Assembly:
    """Everything given rather than made: network, certificate and image; account and region; no DNS."""
    return build(
        "dev",
        {
            "account": "111122223333",
            "region": "eu-central-1",
            "network": {"existing": EXISTING_VPC},
            "ingress": {
                "certificate_arn": CERTIFICATE,
                "hosted_zone_id": None,
                "hosted_zone_name": None,
                "internet_facing": True,
                "allowed_cidrs": ["198.51.100.0/24", "203.0.113.0/24"],
            },
            "server": {"image_uri": IMAGE},
            "database": {"deletion_protection": False, "insights": "off", "monitoring_seconds": 0},
            "identity": {
                "edge_jwt_check": False,
                "plan": "essentials",
                "github_provider_arn": GITHUB_PROVIDER,
                "github": [GITHUB_ROLES[0]],
            },
        },
    )


@pytest.fixture(scope="session")
def public(build: Callable[..., Assembly]) -> Assembly:
    """Prod for clients anywhere on the internet."""
    open_to_all = {"internet_facing": True, "allowed_cidrs": ["0.0.0.0/0"], "deletion_protection": True}
    return build("prod", {"ingress": open_to_all, "server": {"image_uri": IMAGE}})


@pytest.fixture(scope="session")
def replicated(build: Callable[..., Assembly]) -> Assembly:
    """Prod on Aurora, with everything optional that adds resources."""
    return build(
        "prod",
        {
            "tags": {"cost-centre": "research"},
            "database": AURORA,
            "artifacts": {
                "prefix": "team/models",
                "break_glass_role_arn": BREAK_GLASS,
                "object_lock": OBJECT_LOCK,
                "sealed_replica": REPLICA,
            },
            "region": "eu-central-1",
            "backup": BACKUP,
            "cost": COST,
            "events": EVENTS,
            "identity": IDENTITY,
        },
    )
