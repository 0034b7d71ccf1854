"""The synthesized policies in an emulated account that enforces them, each attached to a role.

The template is the one that `cdk deploy` sends, with what has no part in these policies left out.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
import pytest

from local.parts.aws import Aws
from stacks.config import EnvironmentConfig
from stacks.foundation.stack import MlflowFoundation
from stacks.roles import BY_NAME as ROLES
from tests.local.conftest import ACCOUNT, PARTNER, REGION, Account, account  # noqa: F401 - a fixture
from tests.stacks.conftest import ROOT, merged, read_config

DOMAIN = "mlflow.example.org"
AUDIENCE = f"https://{DOMAIN}"
PREFIX = "team"
# A role of the same account to which nobody attached anything.
STRANGER = "stranger"
# Members of roles in a second account, by the name of the session.
MEMBERS_ELSEWHERE = {"contributor": "train", "viewer": "report"}
# The role that may delete versions; its policy is the documented one.
BREAK_GLASS = "test-break-glass"
# Named here, so that another log can have a name that begins alike.
AUDIT_LOG, OTHER_LOG, STREAM = "Foundation-AuditLog", "Foundation-AuditLogs", "audit"
# The server's tasks, with the role that the foundation makes for them.
SERVER = "server"
# The buckets with their policies, the key, the pool, the server's role and what Clients makes; no database,
# no function.
KEPT = ("ArtifactsBucket", "ArtifactsKey", "AccessLogsBucket", "AuditLog", "Clients", "People", "ServerRole")
TYPES = {
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::KMS::Key",
    "AWS::Logs::LogGroup",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::Cognito::UserPool",
}


@dataclass(frozen=True)
class Deployed:
    """What was deployed, seen by the account's root and by a session of each role."""

    root: Aws
    roles: Mapping[str, Aws]
    policies: Mapping[str, str]
    bucket: str
    key_arn: str
    user_pool_id: str


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("iam")
    changes = {
        "ingress": {"domain": DOMAIN, "hosted_zone_name": "example.org"},
        "artifacts": {"prefix": PREFIX, "break_glass_role_arn": f"arn:aws:iam::{ACCOUNT}:role/{BREAK_GLASS}"},
        "identity": {
            "trusted_issuers": [{"account": PARTNER, "issuer": "https://localhost:8446"}],
            "roles": {
                role: {"iam_roles": [f"arn:aws:iam::{PARTNER}:role/test-{name}"]}
                for role, name in MEMBERS_ELSEWHERE.items()
            },
        },
    }
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = cdk.App(outdir=str(directory), context=flags)
    environment = EnvironmentConfig.model_validate(merged(read_config("dev"), changes))
    stack = MlflowFoundation(app, "Foundation", environment=environment)
    app.synth()
    return cut(json.loads((directory / f"{stack.stack_name}.template.json").read_text()))


def cut(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the template that decides who may do what with artifacts and tokens."""
    resources = {
        logical_id: {key: value for key, value in resource.items() if key != "DependsOn"}
        for logical_id, resource in whole["Resources"].items()
        if logical_id.startswith(KEPT) and resource["Type"] in TYPES
    }
    _without_a_database(resources[_only(resources, "ServerRole", "AWS::IAM::Policy")])
    # Without its key, which is no part of the question.
    resources[_only(resources, "AuditLog", "AWS::Logs::LogGroup")]["Properties"] = {"LogGroupName": AUDIT_LOG}
    named = {"Pool": "People", "Bucket": "ArtifactsBucket", "Key": "ArtifactsKey"}
    kinds = {"Pool": "AWS::Cognito::UserPool", "Bucket": "AWS::S3::Bucket", "Key": "AWS::KMS::Key"}
    outputs: dict[str, Any] = {
        name: {"Value": {"Ref": _only(resources, start, kinds[name])}} for name, start in named.items()
    }
    for role in ROLES:
        policy = _only(resources, f"Clients{role.capitalize()}Policy", "AWS::IAM::ManagedPolicy")
        outputs[role.capitalize()] = {"Value": {"Ref": policy}}
    key = _only(resources, "ArtifactsKey", "AWS::KMS::Key")
    outputs["Key"] = {"Value": {"Fn::GetAtt": [key, "Arn"]}}
    outputs["Server"] = {"Value": {"Ref": _only(resources, "ServerRole", "AWS::IAM::Role")}}
    return {"Resources": resources, "Outputs": outputs}


def _without_a_database(policy: Mapping[str, Any]) -> None:
    document = policy["Properties"]["PolicyDocument"]
    document["Statement"] = [each for each in document["Statement"] if each["Action"] != "rds-db:connect"]


def _only(resources: Mapping[str, Any], start: str, kind: str) -> str:
    (found,) = (each for each, it in resources.items() if each.startswith(start) and it["Type"] == kind)
    return found


def _trusting(root: Aws) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{root.account_id}:root"},
        "Action": "sts:AssumeRole",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def session_of(root: Aws, name: str, *, policy_arn: str | None) -> Aws:
    """Make a role to which this policy alone is attached; return the account as its session sees it."""
    iam = root.client("iam")
    role = iam.create_role(RoleName=f"test-{name}", AssumeRolePolicyDocument=_trusting(root))["Role"]
    if policy_arn is not None:
        iam.attach_role_policy(RoleName=role["RoleName"], PolicyArn=policy_arn)
    return root.assume(role["Arn"], session="test")


def session_of_the_server(root: Aws, role: str) -> Aws:
    """A session of the deployed role: for as long as it takes, it trusts the account rather than ECS."""
    iam = root.client("iam")
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=_trusting(root))
    return root.assume(iam.get_role(RoleName=role)["Role"]["Arn"], session="test")


def session_with(root: Aws, statement: Mapping[str, Any]) -> Aws:
    """A role that may what this statement says, and nothing else."""
    document = {"Version": "2012-10-17", "Statement": [statement]}
    policy = root.client("iam").create_policy(
        PolicyName=f"test-{uuid.uuid4()}", PolicyDocument=json.dumps(document)
    )
    return session_of(root, str(uuid.uuid4()), policy_arn=policy["Policy"]["Arn"])


@pytest.fixture(scope="session")
def deployed(account: Account, template: dict[str, Any]) -> Iterator[Deployed]:  # noqa: F811
    cloudformation, iam = account.aws.client("cloudformation"), account.aws.client("iam")
    cloudformation.create_stack(
        StackName="iam", TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"]
    )
    while True:
        stack = cloudformation.describe_stacks(StackName="iam")["Stacks"][0]
        if not stack["StackStatus"].endswith("IN_PROGRESS"):
            break
        time.sleep(0.05)
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    iam.enable_outbound_web_identity_federation()
    logs = account.aws.client("logs")
    logs.create_log_group(logGroupName=OTHER_LOG)
    for name in (AUDIT_LOG, OTHER_LOG):
        logs.create_log_stream(logGroupName=name, logStreamName=STREAM)
    yield Deployed(
        root=account.aws,
        roles={
            **{role: session_of(account.aws, role, policy_arn=outputs[role.capitalize()]) for role in ROLES},
            STRANGER: session_of(account.aws, STRANGER, policy_arn=None),
            SERVER: session_of_the_server(account.aws, outputs["Server"]),
        },
        policies={role: outputs[role.capitalize()] for role in ROLES},
        bucket=outputs["Bucket"],
        key_arn=outputs["Key"],
        user_pool_id=outputs["Pool"],
    )
    iam.disable_outbound_web_identity_federation()
