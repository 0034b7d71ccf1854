"""The table of MLflow's advisories names tests that exist."""

from __future__ import annotations

import re

import pytest

from tests import proof

ROWS = [
    line.split(" | ")
    for line in (proof.PROJECT / "docs" / "advisories.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| Class")
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0].removeprefix("| ") for row in ROWS])
def test_each_class_is_held_by_tests_that_exist(row: list[str]) -> None:
    held = re.findall(r"`(tests/[^`]+)::([^`]+)`", row[3])
    assert held
    assert [(path, name) for path, name in held if name != "*" and name not in proof.tests_of(path)] == []
    assert [path for path, _ in held if not (proof.PROJECT / path).is_file()] == []


def test_each_advisory_is_in_one_class() -> None:
    named = [advisory for row in ROWS for advisory in re.findall(r"CVE-\d{4}-\d+", row[1])]
    assert sorted(named) == sorted(set(named))
    assert len(named) > 50
