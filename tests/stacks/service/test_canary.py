"""The canary's task: what it may do, what it is told, and when it runs."""

from __future__ import annotations

import json
from typing import Any

from tests.stacks.service.test_server_identity import roles
from tests.stacks.templates import Assembly


def container(assembly: Assembly) -> Any:
    task = assembly.service.one("AWS::ECS::TaskDefinition", id_starts="CanaryTaskDefinition")
    (only,) = task["ContainerDefinitions"]
    return only


def test_its_role_writes_to_its_own_place_and_reads_its_own_seals(replicated: Assembly) -> None:
    statements = replicated.service.statements(id_starts="CanaryTaskRole")
    reads, lists, writes, key, tokens = statements
    code, own, sealed = (json.dumps(each) for each in reads["Resource"])
    assert reads["Action"] == "s3:GetObject"
    assert "cdk-" in code
    assert "*" not in code
    assert '"/team/models/canary/*"' in own
    assert '"/team/models/sealed/smoke-canary-*"' in sealed
    assert lists["Action"] == "s3:ListBucket"
    assert lists["Condition"]["StringLike"]["s3:prefix"] == [
        "team/models/canary/*",
        "team/models/sealed/smoke-canary-*",
    ]
    assert writes["Action"] == ["s3:DeleteObject", "s3:PutObject"]
    assert json.dumps(writes["Resource"]) == own
    assert key["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert "kms:ViaService" in key["Condition"]["StringEquals"]
    assert tokens["Action"] == "sts:GetWebIdentityToken"
    assert tokens["Condition"]["ForAllValues:StringEquals"] == {
        "sts:IdentityTokenAudience": "https://mlflow.example.com"
    }
    assert {each["Effect"] for each in statements} == {"Allow"}


def test_the_server_lets_it_promote_its_own_models_only(either: Assembly) -> None:
    canary = roles(either)["canary"]
    assert canary["permissions"] == ["read", "write"]
    assert canary["own_models"] == "smoke-canary-"
    assert canary["groups"] == []
    (member,) = canary["iam_roles"]
    assert "CanaryTaskRole" in member


def test_it_reaches_the_load_balancer_and_not_the_database(either: Assembly) -> None:
    reached = [
        each
        for kind in ("AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress")
        for each in either.service.all(kind)
        if "CanaryTaskSecurityGroup" in json.dumps(each)
    ]
    assert len(reached) == 2
    assert {each["FromPort"] for each in reached} == {443}
    assert all("IngressSecurityGroup" in json.dumps(each) for each in reached)


def test_it_is_told_addresses_and_no_secret(either: Assembly) -> None:
    only = container(either)
    names = {each["Name"] for each in only["Environment"]}
    assert names == {
        "AWS_REGION", "CODE_BUCKET", "CODE_KEY", "MLFLOW_AWS_CANARY_ARTIFACTS", "MLFLOW_AWS_CANARY_MINUTES",
        "MLFLOW_AWS_DEPLOYMENT", "MLFLOW_AWS_PUBLIC_URL", "MLFLOW_AWS_TOKEN_AUDIENCE",
    }  # fmt: skip
    assert "Secrets" not in only
    assert only["ReadonlyRootFilesystem"] is True
    assert only["User"] == "10001:10001"


def test_it_runs_hourly_in_dev_and_every_quarter_of_an_hour_in_prod(dev: Assembly, prod: Assembly) -> None:
    rules = [assembly.service.one("AWS::Events::Rule", id_starts="Canary") for assembly in (dev, prod)]
    assert [rule["ScheduleExpression"] for rule in rules] == ["rate(1 hour)", "rate(15 minutes)"]
    # Its cost is the deployment's.
    assert rules[0]["Targets"][0]["EcsParameters"]["PropagateTags"] == "TASK_DEFINITION"
