"""What AWS's own schemas and rules say about every template."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stacks.config import EnvironmentConfig
from tests.stacks.conftest import IMAGE, ROOT, read_config
from tests.stacks.templates import Assembly

REGIONS = ["us-east-1", "eu-central-1", "ap-southeast-2"]
# GovCloud needs other values: ARNs of its partition, an image, and a class that is on its price list.
GOVCLOUD = {
    "region": "us-gov-west-1",
    "identity": {"roles": {"admin": {"iam_roles": ["arn:aws-us-gov:iam::111122223333:role/platform/admin"]}}},
    "server": {"image_uri": IMAGE.replace("eu-central-1", "us-gov-west-1")},
}
GOVCLOUD_CLASS = {"dev": "t4g.micro", "prod": "m6g.large"}


def errors(assemblies: Iterable[Assembly], regions: Iterable[str]) -> list[Any]:
    """What cfn-lint holds against templates in some regions."""
    templates = [str(each.path) for assembly in assemblies for each in assembly.templates]
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    command = [str(cfn_lint), "--regions", *regions, "--format", "json", "--", *templates]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    return [each for each in json.loads(result.stdout or "[]") if each["Level"] == "Error"]


def test_cfn_lint_finds_no_error_in_either_environment(dev: Assembly, prod: Assembly) -> None:
    assert errors((dev, prod), REGIONS[:1]) == []


@pytest.mark.slow
def test_cfn_lint_finds_no_error_in_any_template_in_three_regions(
    dev: Assembly, prod: Assembly, given: Assembly, public: Assembly, replicated: Assembly
) -> None:
    assert errors((dev, prod, given, public, replicated), REGIONS) == []


@pytest.mark.slow
def test_cfn_lint_finds_no_error_in_govcloud(build: Callable[..., Assembly]) -> None:
    built = [
        build(name, {**GOVCLOUD, "database": {"instance_class": instance_class}})
        for name, instance_class in GOVCLOUD_CLASS.items()
    ]
    assert errors(built, ["us-gov-west-1"]) == []


@pytest.mark.parametrize("name", ["dev", "prod"])
@pytest.mark.slow
def test_china_lacks_user_pools_and_nothing_else_and_is_refused_for_that(
    name: str, request: pytest.FixtureRequest
) -> None:
    anywhere: Assembly = request.getfixturevalue(name)
    messages = [each["Message"] for each in errors([anywhere], ["cn-north-1"])]
    assert messages
    assert [each for each in messages if "'AWS::Cognito::" not in each or "does not exist" not in each] == []
    with pytest.raises(ValidationError, match="is in aws-cn, where Cognito has no user pools"):
        EnvironmentConfig.model_validate({**read_config(name), "region": "cn-north-1"})


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
    unsaid = set()
    for assembly in (dev, prod, given, public, replicated):
        assert assembly.acknowledged
        for rule, reason in assembly.acknowledged.items():
            name = rule.split("::", 1)[-1].split("[", 1)[0].removeprefix("AwsSolutions-")
            if f"| {name} |" not in document or f"| {reason} |" not in document:
                unsaid.add((name, reason))
    assert not unsaid
