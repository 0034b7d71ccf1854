"""The difference that a pull request shows, made as the workflow makes it, with the pinned CDK CLI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local.state import PROJECT
from tests.stacks.templates import Assembly
from tests.test_shipping import script


@pytest.mark.slow
def test_a_pull_request_shows_what_it_would_change_without_a_credential(
    dev: Assembly, tmp_path: Path
) -> None:
    after, before = tmp_path / "after", tmp_path / "before"
    for tree in (after, before):
        for name in ("cdk-dev", "cdk-prod"):
            shutil.copytree(dev.service.path.parent, tree / name)
    (after / "node_modules").symlink_to(PROJECT / "node_modules")
    service = before / "cdk-dev" / dev.service.path.name
    template = json.loads(service.read_text())
    added, _ = template["Outputs"].popitem()
    service.write_text(json.dumps(template))
    for each in (before / "cdk-prod").glob("*.template.json"):
        each.rename(each.with_name(f"Former{each.name}"))

    subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script("check", "diff", "Compare")],
        cwd=after,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GITHUB_STEP_SUMMARY": "summary.md"},
        check=True,
    )

    said = (after / "cut.md").read_text()
    _, foundation, changed, *gone, new = said.split("### ")
    assert "There were no differences" in foundation
    assert f"\n+ Output {added}" in changed
    assert [each.split("\n")[0][-11:] for each in gone] == [" is removed"] * 2
    assert "\n+ AWS::RDS::DBInstance" in new
    # What a comment holds.
    assert len(said) < 65_536
    assert new.endswith("Cut here; the rest is in the summary of the job.\n")
    assert "\n+ AWS::ECS::Service" in (after / "summary.md").read_text()
