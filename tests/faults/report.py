"""docs/reliability.md, from what was measured: `python -m tests.faults > docs/reliability.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.faults import FAULTS

RESULTS = Path(__file__).with_name("results.json")
_HEAD = Path(__file__).with_name("head.md")


def as_markdown() -> str:
    """The whole document."""
    kept = json.loads(RESULTS.read_text())
    lines = [
        _HEAD.read_text().rstrip(),
        "",
        "| Fault | What happens | For | Acknowledged | Stored | Lost | Calls that failed | Nobody was served "
        "| Longest call |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for fault in FAULTS:
        seen = kept[fault.name]
        lines.append(
            f"| {fault.name} | {fault.happens} | {seen['seconds']:g} s | {_counts(seen['acknowledged'])} "
            f"| {_counts(seen['stored'])} | {seen['lost']} | {seen['failed']} "
            f"| {seen['unavailable']:.1f} s | {seen['longest_call']:.1f} s |"
        )
    lines += ["", "## What users see", ""]
    lines += [f"- **{fault.name[0].upper()}{fault.name[1:]}**: {fault.seen}." for fault in FAULTS]
    return "\n".join(lines) + "\n"


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in counts.items() if number)
