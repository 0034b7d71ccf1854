"""docs/fuzz.md, from what `python -m tests.fuzz` kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from local.state import PROJECT
from tests.fuzz.explained import EXPLAINED

RESULTS = Path(__file__).with_name("results.json")
DOCUMENT = PROJECT / "docs" / "fuzz.md"
_HEAD = Path(__file__).with_name("head.md")
_CLASSES = ("2xx", "3xx", "4xx", "5xx")


def as_markdown() -> str:
    """The whole document."""
    kept = json.loads(RESULTS.read_text())
    explained: Counter[str] = Counter()
    for where, count in kept["explained"].items():
        explained[where.partition(": ")[0]] += count
    total = Counter[str]()
    for seen in kept["routes"].values():
        total.update(seen)
    first, last = kept["seeds"]
    lines = [
        _HEAD.read_text().rstrip(),
        "",
        "## What was seen",
        "",
        f"- {total.total():,} requests to {len(kept['routes'])} routes in {kept['minutes']:g} minutes, "
        f"with the seeds {first} to {last}, {kept['examples']} examples of each mode: "
        f"`python -m tests.fuzz --minutes {kept['minutes']:.0f} --seed {first}`.",
        "- "
        + ", ".join(f"{total[kind]:,} answers {kind}" for kind in _CLASSES)
        + f"; {kept['changes']:,} changes, with those that prepare it; each has its line in the audit log.",
        f"- **Unexplained 5xx: {kept['unexplained']}.** Nothing else that is listed above was broken either.",
        f"- The server's processes took {kept['peak_mib']} MiB at most; dev's task has 1,024 MiB.",
        "",
        "## Explained answers",
        "",
        "These are stock MLflow's, and the only ones that the tests allow (`tests/fuzz/explained.py`).",
        "",
        "| Answer | Times | Why it stays |",
        "|---|--:|---|",
        *(f"| {each.name} | {explained[each.name]:,} | {each.why} |" for each in EXPLAINED),
        "",
        "## Requests per route",
        "",
        f"| Route | Requests | {' | '.join(_CLASSES)} |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for route, seen in kept["routes"].items():
        numbers = " | ".join(str(seen.get(kind, 0)) for kind in _CLASSES)
        lines.append(f"| `{route}` | {sum(seen.values())} | {numbers} |")
    return "\n".join(lines) + "\n"
