"""A finding, a list of them as a table or as JSON, and the exit code that they mean."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

PASSED, FAILED, COULD_NOT_RUN = 0, 1, 2
_PLAIN_WIDTH = 150
_LONGEST_OBSERVATION = {"✓": 140, "!": 400, "✗": 1000, "-": 400}


class Mark(Enum):
    """What a look came to."""

    GOOD = "✓"
    WARNING = "!"
    BAD = "✗"
    NOT_ASKED = "-"

    @property
    def words(self) -> str:
        """The mark in a word or two."""
        return {"✓": "passed", "!": "warning", "✗": "failed", "-": "not asked here"}[self.value]


_STYLES = {Mark.GOOD: "green", Mark.WARNING: "yellow", Mark.BAD: "bold red", Mark.NOT_ASKED: "dim"}


@dataclass(frozen=True)
class AccountFinding:
    """One look: what was asked, what was observed, and what to do unless it is good."""

    title: str
    mark: Mark
    observed: object = ""
    remedy: str = ""

    @property
    def told(self) -> str:
        """What was observed, short enough to read."""
        text = self.observed if isinstance(self.observed, str) else json.dumps(self.observed, default=str)
        longest = _LONGEST_OBSERVATION[self.mark.value]
        return text if len(text) <= longest else f"{text[:longest]}…"


def exit_code(findings: Sequence[AccountFinding]) -> int:
    """1 if one of them is bad, else 0."""
    return FAILED if any(each.mark is Mark.BAD for each in findings) else PASSED


def as_json(findings: Sequence[AccountFinding], **more: object) -> str:
    """Everything, for programs."""
    told = [
        {"title": each.title, "result": each.mark.words, "observed": each.told, "remedy": each.remedy}
        for each in findings
    ]
    return json.dumps({**more, "findings": told}, indent=2, ensure_ascii=False)


def counted(findings: Sequence[AccountFinding]) -> str:
    """How many there are of each mark, such as `57 passed, 1 failed`."""
    marks = Counter(each.mark for each in findings)
    return ", ".join(f"{marks[mark]} {mark.words}" for mark in Mark if marks[mark])


def show(findings: Sequence[AccountFinding], stream: TextIO) -> None:
    """Print the table; the remedy stands beside whatever is not good."""
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _PLAIN_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", width=1, no_wrap=True)
    table.add_column("", min_width=30, ratio=2)
    table.add_column("observed", overflow="fold", ratio=3)
    for each in findings:
        good = each.mark is Mark.GOOD
        told = Text(each.told, "dim")
        if not good and each.remedy:
            told.append(f"\n→ {each.remedy}", _STYLES[each.mark])
        table.add_row(
            Text(each.mark.value, _STYLES[each.mark]),
            Text(each.title, "" if good else _STYLES[each.mark]),
            told,
        )
    console.print(table)
