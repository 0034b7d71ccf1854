"""What a search would cost the database, judged by its text."""

from __future__ import annotations


def check(method: str, path: str, query: bytes, body: bytes) -> None:
    """Refuse a search that the database should not be asked.

    `path` is decoded, `query` as it came, `body` whole and plain; `method` in upper case.

    Raises:
        LimitError: it is beyond a limit.
    """
