"""A role is one entry of `stacks.roles`, and everything else follows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow_aws_server.identity import RoleMap
from mlflow_aws_server.identity.roles import Permission

from stacks.roles import ROLES
from stacks.roles import Permission as Word
from tests.stacks.conftest import IMAGE, ROOT
from tests.stacks.templates import Assembly

_ENTRY = """
    RoleEntry(
        name="releaser",
        summary="Promotes what others log.",
        permissions=("read", "approve"),
        objects=GET_OBJECTS,
    ),
"""
_MEMBERS = '\n[identity.roles.releaser]\niam_roles = ["arn:aws:iam::111122223333:role/release"]\n'


def test_the_words_are_the_server_s() -> None:
    assert set(Word.__args__) == set(Permission)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_new_role_is_one_entry(tmp_path: Path) -> None:
    for each in ("stacks", "client_smoke"):
        shutil.copytree(ROOT / each, tmp_path / each)
    shutil.copy(ROOT / "app.py", tmp_path)
    table = tmp_path / "stacks/roles.py"
    table.write_text(table.read_text().replace("\nROLES = (\n", f"\nROLES = ({_ENTRY}", 1))
    (tmp_path / "config").mkdir()
    given = (ROOT / "config/dev.toml").read_text().replace("[server]\n", f'[server]\nimage_uri = "{IMAGE}"\n')
    (tmp_path / "config/dev.toml").write_text(given + _MEMBERS)
    context = json.loads((ROOT / "cdk.json").read_text())["context"] | {"env": "dev"}
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env={**os.environ, "CDK_OUTDIR": str(tmp_path / "out"), "CDK_CONTEXT_JSON": json.dumps(context)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    foundation, service = (
        json.loads((tmp_path / f"out/MlflowOnAws-dev-{stack}.template.json").read_text())
        for stack in ("Foundation", "Service")
    )
    groups = {
        each["Properties"]["GroupName"]: each["Properties"]["Precedence"]
        for each in foundation["Resources"].values()
        if each["Type"] == "AWS::Cognito::UserPoolGroup"
    }
    assert groups == {
        **{role.group: precedence for precedence, role in enumerate(reversed(ROLES))},
        "mlflow-releaser": len(ROLES),
    }
    assert [each for each in foundation["Resources"] if each.startswith("ClientsReleaserPolicy")]
    assert "ReleaserPolicyArn" in service["Outputs"]
    mapping = RoleMap.parse(_server_roles(service))
    (role,) = mapping.of_iam_role("arn:aws:iam::111122223333:role/release")
    assert role.permissions == {Permission.READ, Permission.APPROVE}
    assert mapping.of_groups(["mlflow-releaser"]) == (role,)


def _server_roles(service: dict[str, Any]) -> str:
    (task,) = (
        resource["Properties"]["ContainerDefinitions"][0]
        for name, resource in service["Resources"].items()
        if name.startswith("ServerTaskDefinition")
    )
    (value,) = (each["Value"] for each in task["Environment"] if each["Name"] == "MLFLOW_AWS_ROLES")
    # A part that only the deployment knows is the ARN of the canary's role.
    _, parts = value["Fn::Join"]
    return "".join(
        part if isinstance(part, str) else "arn:aws:iam::111122223333:role/canary" for part in parts
    )


def test_the_auditor_reads_the_audit_log_and_no_other(dev: Assembly) -> None:
    policy = dev.foundation.one("AWS::IAM::ManagedPolicy", id_starts="ClientsAuditorPolicy")
    (statement,) = (each for each in policy["PolicyDocument"]["Statement"] if each["Sid"] == "AuditLog")
    (log,) = (each for each in dev.foundation.resources if each.startswith("AuditLog"))
    assert statement["Resource"] == {"Fn::GetAtt": [log, "Arn"]}
