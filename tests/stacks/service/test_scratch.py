"""Rehearsals and drills have a stack of their own, which leaves the others as they are."""

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks

from stacks.config import EnvironmentConfig
from stacks.foundation.stack import MlflowFoundation
from stacks.service.scratch import MlflowScratch
from stacks.service.stack import MlflowService
from tests.stacks.conftest import ROOT, read_config
from tests.stacks.templates import Assembly, Template, as_list


@pytest.fixture(scope="module", params=["dev"])
def scratch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Any]:
    config = EnvironmentConfig.model_validate(read_config(request.param))
    return request.param, *synthesize(config, request.param, tmp_path_factory.mktemp("scratch"))


def synthesize(config: EnvironmentConfig, name: str, directory: Path) -> tuple[Path, Any]:
    """As app.py does with `-c scratch=yes`."""
    app = cdk.App(outdir=str(directory), context=json.loads((ROOT / "cdk.json").read_text())["context"])
    foundation = MlflowFoundation(app, f"MlflowOnAws-{name}-Foundation", environment=config)
    MlflowService(app, f"MlflowOnAws-{name}-Service", environment=config, foundation=foundation)
    stack = MlflowScratch(app, f"MlflowOnAws-{name}-Scratch", environment=config, foundation=foundation)
    app.synth()
    return directory, AwsSolutionsChecks(app).validate_scope(stack)


def template(scratch: tuple[str, Path, Any], stack: str) -> Template:
    return Template.read(scratch[1] / f"MlflowOnAws-{scratch[0]}-{stack}.template.json")


def connects(scratch: tuple[str, Path, Any], operation: str) -> list[Any]:
    (statement, *others) = (
        each
        for each in template(scratch, "Scratch").statements(id_starts=f"{operation}TaskRole")
        if each["Action"] == "rds-db:connect"
    )
    assert not others
    resources = statement["Resource"]
    return as_list(resources)


def test_the_other_stacks_stay_as_they_are(
    scratch: tuple[str, Path, Any], request: pytest.FixtureRequest
) -> None:
    deployed: Assembly = request.getfixturevalue(scratch[0])
    assert template(scratch, "Foundation").body == deployed.foundation.body
    assert template(scratch, "Service").body == deployed.service.body


def test_it_makes_no_finding(scratch: tuple[str, Path, Any]) -> None:
    assert list(scratch[2].violations) == []


def test_a_rehearsal_reaches_the_scratch_database_and_no_other(scratch: tuple[str, Path, Any]) -> None:
    text = json.dumps(connects(scratch, "Rehearse"))
    assert text.count('{"Ref": "Scratch"}') == 2
    assert "mlflow_migrator" in text
    assert "Fn::ImportValue" not in text
    actions = {
        action
        for logical_id, action, _ in template(scratch, "Scratch").allowed()
        if logical_id.startswith("RehearseTaskRole")
    }
    assert actions == {"rds-db:connect"}


def test_a_drill_signs_in_as_the_server_does(scratch: tuple[str, Path, Any]) -> None:
    text = json.dumps(connects(scratch, "Drill"))
    assert text.count("/mlflow_server") == 2
    assert "mlflow_migrator" not in text


def test_its_tasks_are_found_by_its_outputs(scratch: tuple[str, Path, Any]) -> None:
    outputs = template(scratch, "Scratch").outputs
    assert set(outputs) == {"OperationRehearse", "OperationDrill"}
    text = json.dumps(outputs["OperationRehearse"])
    for name in ("cluster", "task_definition", "subnets", "security_groups", "container", "log_group"):
        assert f'\\"{name}\\"' in text
