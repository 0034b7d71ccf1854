"""What AWS's own schemas and rules say about every template."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stacks.conftest import ROOT
from tests.stacks.templates import Assembly

REGIONS = ["us-east-1", "eu-central-1", "ap-southeast-2"]


def test_cfn_lint_finds_no_error_in_any_template_in_three_regions(
    dev: Assembly, prod: Assembly, given: Assembly, public: Assembly, replicated: Assembly
) -> None:
    templates = [
        str(template.path)
        for assembly in (dev, prod, given, public, replicated)
        for template in (assembly.foundation, assembly.service)
    ]
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    command = [str(cfn_lint), "--regions", *REGIONS, "--format", "json", "--", *templates]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    findings = json.loads(result.stdout or "[]")
    assert result.stderr == ""
    assert [each for each in findings if each["Level"] == "Error"] == []


@pytest.mark.parametrize("environment", ["dev", "prod", "given", "public", "replicated"])
def test_every_finding_of_aws_solutions_is_resolved_or_acknowledged(
    environment: str, request: pytest.FixtureRequest
) -> None:
    assembly: Assembly = request.getfixturevalue(environment)
    assert assembly.findings == ()


def test_every_acknowledgement_has_a_reason_that_the_documentation_repeats(
    dev: Assembly, prod: Assembly, given: Assembly, public: Assembly, replicated: Assembly
) -> None:
    document = (ROOT / "docs" / "security.md").read_text()
    for assembly in (dev, prod, given, public, replicated):
        assert assembly.acknowledged
        for rule, reason in assembly.acknowledged.items():
            name = rule.split("::", 1)[-1].split("[", 1)[0].removeprefix("AwsSolutions-")
            assert f"| {name} |" in document
            assert f"| {reason} |" in document
