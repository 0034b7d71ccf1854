"""Code in the documents: its blocks, each with a mark in a comment before it.

`run by TEST`: that test takes the block from the document and runs it. `tested by TEST`: that test does what
the block says. `not run: WHY`: no test does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from local.state import PROJECT

_MARK = re.compile(r"<!-- (?:(?:run|tested) by (?P<test>tests/\S+)|not run: (?P<reason>\S.+)) -->")
_SPAN = re.compile(r"`([^`\n]+)`")
# Pictures, which GitHub draws.
_DRAWN = ("mermaid",)


@dataclass(frozen=True)
class Block:
    """One code block of a document."""

    document: str
    line: int
    text: str
    test: str | None
    reason: str | None

    @property
    def commands(self) -> str:
        """What a reader types: with a prompt before it, if there is one, without comments."""
        lines = self.text.splitlines()
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return "\n".join(prompted or lines)


def documents() -> list[str]:
    """README, CONTRIBUTING and everything in docs/."""
    return [
        "README.md",
        "CONTRIBUTING.md",
        *sorted(str(each.relative_to(PROJECT)) for each in (PROJECT / "docs").rglob("*.md")),
    ]


def blocks(document: str) -> Iterator[Block]:
    """The code blocks of a document, without drawings."""
    lines = iter(enumerate((PROJECT / document).read_text().splitlines(), start=1))
    before = ""
    for number, line in lines:
        if line.startswith("```"):
            inside = []
            for _, text in lines:
                if text.startswith("```"):
                    break
                inside.append(text)
            if line.removeprefix("```") not in _DRAWN:
                mark = _MARK.fullmatch(before)
                yield Block(
                    document,
                    number,
                    "\n".join(inside),
                    mark["test"] if mark else None,
                    mark["reason"] if mark else None,
                )
        before = line if line.strip() else before


def spans(document: str) -> Iterator[str]:
    """The code spans of a document."""
    text = re.sub(r"^```.*?^```", "", (PROJECT / document).read_text(), flags=re.DOTALL | re.MULTILINE)
    yield from _SPAN.findall(text)
