"""Text of clients on a terminal: no control character, and nothing that hides or reorders other text."""

from __future__ import annotations

import sys

_LONGEST = 500


def plain(text: str, *, limit: int = _LONGEST) -> str:
    """One line that a terminal shows as it is: what cannot be printed is written as its escape sequence."""
    shown = text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)


def progress(text: str) -> None:
    """Tell the person at the terminal what is being waited for."""
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()
