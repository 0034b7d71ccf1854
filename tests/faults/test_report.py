"""docs/reliability.md."""

from __future__ import annotations

import json

from local.state import PROJECT
from tests.faults.faults import FAULTS
from tests.faults.report import RESULTS, as_markdown


def test_document_is_what_was_measured() -> None:
    assert (PROJECT / "docs" / "reliability.md").read_text() == as_markdown(), (
        "python -m tests.faults > docs/reliability.md"
    )


def test_every_fault_was_measured_and_lost_nothing() -> None:
    kept = json.loads(RESULTS.read_text())
    assert list(kept) == [fault.name for fault in FAULTS]
    for name, seen in kept.items():
        assert seen["acknowledged"] == seen["stored"], name
        assert (seen["lost"], seen["doubled"]) == (0, 0), name
