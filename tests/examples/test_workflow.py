"""The GitHub workflow: no secret, least permissions, pinned actions, and the steps of the local command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from examples.credit_risk.pipeline import STEPS

_WORKFLOWS = Path(__file__).resolve().parents[2] / ".github" / "workflows"
_FILE = _WORKFLOWS / "model.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(_FILE.read_text())
    return loaded


def _steps(workflow: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(job, step) for job, content in workflow["jobs"].items() for step in content["steps"]]


@pytest.mark.parametrize("file", sorted(_WORKFLOWS.glob("*.yml")), ids=lambda file: str(file.name))
def test_no_workflow_uses_a_secret(file: Path) -> None:
    assert set(re.findall(r"secrets\.(\w+)", file.read_text())) <= {"GITHUB_TOKEN"}
    assert "secrets:" not in file.read_text()


def test_each_job_may_read_the_code_and_ask_for_an_identity_and_nothing_else(
    workflow: dict[str, Any],
) -> None:
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read", "id-token": "write"}


def test_every_action_is_pinned_by_its_whole_commit(workflow: dict[str, Any]) -> None:
    used = [step["uses"] for _, step in _steps(workflow) if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action


def test_roles_are_assumed_by_oidc_and_never_by_keys(workflow: dict[str, Any]) -> None:
    assumed = [
        step["with"] for _, step in _steps(workflow) if "configure-aws-credentials" in step.get("uses", "")
    ]
    assert [each["role-to-assume"] for each in assumed] == [
        "${{ vars.TRAINER_ROLE_ARN }}",
        "${{ vars.APPROVER_ROLE_ARN }}",
    ]
    assert all(set(each) == {"role-to-assume", "aws-region"} for each in assumed)


def test_the_token_comes_from_the_role(workflow: dict[str, Any]) -> None:
    assert workflow["env"]["MLFLOW_TRACKING_AUTH"] == "aws"
    assert "TOKEN" not in " ".join(workflow["env"])


def test_the_steps_are_those_of_the_local_command_in_their_order_and_roles(workflow: dict[str, Any]) -> None:
    roles = {"train": "contributor", "promote": "approver"}
    run = [(roles[job], step["run"]) for job, step in _steps(workflow) if "pipeline" in step.get("run", "")]
    assert run == [(step.role, f"python {' '.join(step.command)}") for step in STEPS]


def test_rollback_runs_only_if_something_failed_after_the_promotion(workflow: dict[str, Any]) -> None:
    after = {step.name for step in STEPS if step.only_after_failure}
    for _, step in _steps(workflow):
        if step.get("run", "").split(" ")[-1] in after:
            assert step["if"] == "failure() && steps.promote.outcome == 'success'"
    assert after == {"rollback"}


def test_no_input_is_pasted_into_a_command(workflow: dict[str, Any]) -> None:
    for _, step in _steps(workflow):
        assert "${{" not in step.get("run", "")


def test_the_approvers_job_needs_the_protected_environment(workflow: dict[str, Any]) -> None:
    assert workflow["jobs"]["promote"]["environment"] == "production"
