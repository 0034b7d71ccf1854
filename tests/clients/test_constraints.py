from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from local.state import PROJECT
from tests.clients.installation import VERSIONS, locked

_CONSTRAINTS = [
    Requirement(line)
    for line in (PROJECT / "client-constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def pinned(name: str) -> dict[str, set[Version]]:
    """Every version of every distribution in a lock file; markers may choose among several."""
    found: dict[str, set[Version]] = {}
    for distribution, version in re.findall(
        r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", locked(name).read_text(), re.MULTILINE
    ):
        found.setdefault(distribution, set()).add(Version(version))
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_tested_client_satisfies_the_constraints(version: str) -> None:
    pins = pinned(f"mlflow-{version}")
    assert pins["mlflow"] == {Version(version)}
    for constraint in _CONSTRAINTS:
        for pin in pins.get(constraint.name, set()):
            assert constraint.specifier.contains(pin), f"{constraint.name} {pin}"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_line_of_a_clients_lock_file_has_a_hash(version: str) -> None:
    lines = locked(f"mlflow-{version}").read_text().splitlines()
    pins = [number for number, line in enumerate(lines) if re.match(r"[A-Za-z0-9]", line)]
    assert pins
    assert [lines[number] for number in pins if "--hash=sha256:" not in lines[number + 1]] == []


def test_constraints_exclude_the_skops_that_distrusts_trees() -> None:
    (skops,) = (constraint for constraint in _CONSTRAINTS if constraint.name == "skops")
    assert not skops.specifier.contains("0.15.0")
    (newer,) = pinned("newer-skops")["skops"]
    assert not skops.specifier.contains(newer)


def test_repositorys_own_client_satisfies_the_constraints() -> None:
    text = (PROJECT / "requirements.txt").read_text()
    for constraint in _CONSTRAINTS:
        for version in re.findall(rf"^{constraint.name}==([^ ;\\]+)", text, re.MULTILINE):
            assert constraint.specifier.contains(version), f"{constraint.name} {version}"
