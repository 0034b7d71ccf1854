"""What AWS's own schemas and rules say about every template."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stacks.templates import Assembly

REGIONS = ["us-east-1", "eu-central-1", "ap-southeast-2"]


def test_cfn_lint_finds_no_error_in_any_template_in_three_regions(
    dev: Assembly, prod: Assembly, given: Assembly, replicated: Assembly
) -> None:
    templates = [
        str(template.path)
        for assembly in (dev, prod, given, replicated)
        for template in (assembly.foundation, assembly.service)
    ]
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    command = [str(cfn_lint), "--regions", *REGIONS, "--format", "json", "--", *templates]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    findings = json.loads(result.stdout or "[]")
    assert result.stderr == ""
    assert [each for each in findings if each["Level"] == "Error"] == []


@pytest.mark.parametrize("environment", ["dev", "prod", "given", "replicated"])
def test_every_finding_of_aws_solutions_is_resolved_or_acknowledged(
    environment: str, request: pytest.FixtureRequest
) -> None:
    assembly: Assembly = request.getfixturevalue(environment)
    assert assembly.findings == ()
