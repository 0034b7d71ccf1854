"""Deploying through the API of an emulated account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.deployment import DeploymentError, deploy, stack_names

if TYPE_CHECKING:
    from tests.local.conftest import Account


def assembly(directory: Path, **stacks: dict[str, Any]) -> Path:
    artifacts: dict[str, Any] = {"Tree": {"type": "cdk:tree"}}
    for name, template in stacks.items():
        artifacts[name] = {
            "type": "aws:cloudformation:stack",
            "dependencies": template.pop("dependencies", []),
        }
        (directory / f"{name}.template.json").write_text(json.dumps(template))
    (directory / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))
    return directory


def test_stacks_come_after_those_they_depend_on(tmp_path: Path) -> None:
    assembly(tmp_path, A={"dependencies": ["B", "Tree"]}, B={"dependencies": ["C"]}, C={})
    assert stack_names(tmp_path) == ["C", "B", "A"]


def supported(account: Account) -> list[str]:
    ready = json.loads((account.directory / "emulator" / "ready.json").read_text())
    return [str(each) for each in ready["types"]]


def test_a_stack_is_deployed_with_its_files(account: Account, assets: str, tmp_path: Path) -> None:
    (tmp_path / "asset.1").mkdir()
    (tmp_path / "asset.1" / "index.py").write_text("x = 1")
    manifest = {
        "files": {
            "1": {
                "source": {"path": "asset.1", "packaging": "zip"},
                "destinations": {"d": {"objectKey": "1.zip", "bucketName": "any"}},
            }
        }
    }
    (tmp_path / "One.assets.json").write_text(json.dumps(manifest))
    topic = {
        "Resources": {"Log": {"Type": "AWS::Logs::LogGroup"}},
        "Outputs": {"Name": {"Value": {"Ref": "Log"}}},
    }
    stack = deploy(
        account.aws, assembly(tmp_path, One=topic), "One", supported=supported(account), bucket=assets
    )
    assert stack.of_type("AWS::Logs::LogGroup") == [stack.outputs["Name"]]
    assert account.aws.client("s3").get_object(Bucket=assets, Key="1.zip")["Body"].read(2) == b"PK"


def test_what_is_only_recorded_is_reported(account: Account, assets: str, tmp_path: Path) -> None:
    resources = {"Log": {"Type": "AWS::Logs::LogGroup"}, "Flow": {"Type": "AWS::EC2::FlowLog"}}
    whole = assembly(tmp_path, Two={"Resources": resources})
    stack = deploy(account.aws, whole, "Two", supported=supported(account), bucket=assets)
    assert stack.only_recorded == ["AWS::EC2::FlowLog"]


def test_a_failure_names_the_resource_and_the_reason(account: Account, assets: str, tmp_path: Path) -> None:
    broken = {
        "Broken": {
            "Type": "Custom::Broken",
            "Properties": {"ServiceToken": "arn:aws:lambda:eu-central-1:000000000000:function:none"},
        }
    }
    whole = assembly(tmp_path, Three={"Resources": broken})
    with pytest.raises(DeploymentError, match=r"Three: .*FAILED.*: Broken: .*not found"):
        deploy(account.aws, whole, "Three", supported=supported(account), bucket=assets)
