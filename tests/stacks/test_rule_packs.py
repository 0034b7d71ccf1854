"""What other rule packs find in dev and prod is accepted in docs/rule-packs.toml, with a reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import cdk_nag
import pytest

from stacks.config import EnvironmentConfig
from tests.clients.installation import installed
from tests.stacks.conftest import ROOT, read_config, stacks_of
from tests.stacks.templates import Assembly

NAG = (cdk_nag.NIST80053R5Checks, cdk_nag.HIPAASecurityChecks, cdk_nag.PCIDSS321Checks)
LOCK = Path(__file__).with_name("rule_packs.txt")
ROWS: list[dict[str, Any]] = tomllib.loads((ROOT / "docs" / "rule-packs.toml").read_text())["accepted"]


@dataclass(frozen=True)
class Finding:
    """A rule, and the construct's path below its stack or its logical id, letters and digits alone."""

    rule: str
    where: str


def squeezed(path: str) -> str:
    return re.sub(r"\W", "", path)


def of_construct(rule: str, path: str) -> Finding:
    return Finding(
        re.sub(r"^(HIPAA\.Security|NIST\.800\.53\.R5|PCI\.DSS\.321)-", "", rule),
        squeezed(path.partition("/")[2]),
    )


def accepts(row: dict[str, Any], finding: Finding) -> bool:
    return finding.rule in row["rules"] and any(
        finding.where.startswith(squeezed(each)) for each in row["where"]
    )


def by_cdk_nag(assembly: Assembly) -> set[Finding]:
    return {
        of_construct(violation.rule_name, resource.construct_path)
        for pack in NAG
        for violation in pack(assembly.app).validate_scope(assembly.app).violations
        for resource in violation.violating_resources
    }


def by_checkov(assemblies: Iterable[Assembly]) -> set[Finding]:
    """Offline: its rules are in the package."""
    templates = [str(each.path) for assembly in assemblies for each in assembly.templates]
    checkov = installed("rule-packs", LOCK) / "bin" / "checkov"
    options = ["--framework=cloudformation", "--compact", "--quiet", "--skip-download", "--output=json"]
    said = subprocess.run(
        [checkov, *options, "--file", *templates], capture_output=True, text=True, check=False
    ).stdout
    report = json.loads(said)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 600
    failed = report["results"]["failed_checks"]
    return {Finding(each["check_id"], squeezed(each["resource"].partition(".")[2])) for each in failed}


def by_cfn_guard(directory: Path) -> set[Finding]:
    """AWS Control Tower's proactive controls; the plugin sees templates at their synthesis only."""
    (packages,) = (installed("rule-packs", LOCK) / "lib").glob("python*/site-packages")
    sys.path.append(str(packages))
    try:
        from cdklabs.cdk_validator_cfnguard import CfnGuardValidator  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(packages))
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = cdk.App(outdir=str(directory), context=flags, policy_validation_beta1=[CfnGuardValidator()])
    stacks_of(app, EnvironmentConfig.model_validate(read_config("prod")), name="prod")
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
    report, *_ = json.loads((directory / "validation-report.json").read_text())["pluginReports"]
    assert report["pluginName"] == "cdk-validator-cfnguard"
    return {
        of_construct(violation["ruleName"], construct["constructPath"])
        for violation in report["violations"]
        for construct in violation["violatingConstructs"]
    }


def unaccepted(findings: Iterable[Finding]) -> list[Finding]:
    return sorted((each for each in findings if not any(accepts(row, each) for row in ROWS)), key=str)


def test_nist_hipaa_and_pci_find_nothing_that_is_not_accepted_with_a_reason(
    dev: Assembly, prod: Assembly
) -> None:
    assert unaccepted(by_cdk_nag(dev) | by_cdk_nag(prod)) == []


@pytest.mark.slow
def test_checkov_and_control_tower_neither_and_nothing_is_accepted_that_no_pack_reports(
    dev: Assembly, prod: Assembly, tmp_path: Path
) -> None:
    others = by_checkov([dev, prod]) | by_cfn_guard(tmp_path)
    assert unaccepted(others) == []
    found = others | by_cdk_nag(dev) | by_cdk_nag(prod)
    idle = [
        (rule, where)
        for row in ROWS
        for rule in row["rules"]
        for where in row["where"]
        if not any(accepts({"rules": row["rules"], "where": [where]}, each) for each in found)
        or not any(accepts({"rules": [rule], "where": row["where"]}, each) for each in found)
    ]
    assert idle == []


def test_the_documentation_lists_each_with_its_reason() -> None:
    document = (ROOT / "docs" / "security.md").read_text()
    rows = "\n".join(
        "| {} | {} | {} |".format(
            ", ".join(row["rules"]),
            ", ".join(f"`{each}`" if each else "everywhere" for each in row["where"]),
            row["because"],
        )
        for row in ROWS
    )
    assert rows in document, rows
