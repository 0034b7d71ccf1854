"""Loads a plain dump of pg_dump into a database, as psql would."""

from __future__ import annotations

import io
from typing import Any


def load(cursor: Any, dump: str) -> None:
    """Run the dump's statements, and copy its rows."""
    statements: list[str] = []
    # Only line feeds end a line: a value may hold any other separator.
    lines = iter(io.StringIO(dump, newline="\n"))
    for line in lines:
        if line.startswith("COPY ") and line.endswith("FROM stdin;\n"):
            _execute(cursor, statements)
            cursor.copy_expert(line, io.StringIO("".join(iter(lambda: next(lines), "\\.\n"))))
        # Comments, and psql's own commands such as \restrict.
        elif not line.startswith(("--", "\\")):
            statements.append(line)
    _execute(cursor, statements)
    # pg_dump has emptied it for the session.
    cursor.execute("RESET search_path")


def _execute(cursor: Any, statements: list[str]) -> None:
    if text := "".join(statements).strip():
        cursor.execute(text)
    statements.clear()
