"""Reading a plain dump of `pg_dump`: its COPY blocks are parts of an archive as they are."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from operations.command import Say
from operations.errors import CannotRunError
from operations.imports.archive import NOT_READ, Archive
from operations.imports.databases import known, mlflow_tables

_COPY = re.compile(rb'COPY (?:"?[^".\s]+"?\.)?"?(?P<table>\w+)"? \((?P<columns>[^)]*)\) FROM stdin;\s*')
_END = b"\\.\n"
_GZIP = b"\x1f\x8b"
_CUSTOM = b"PGDMP"
_FIRST = 4096


def read(path: Path, begin: Callable[[str], Archive], say: Say) -> Archive:
    """Read every table of MLflow's in a dump, gzip'd or not; the file is read twice, never held.

    Raises:
        CannotRunError: it is a dump of another kind, or not of MLflow.
    """
    _require_plain(path)
    archive = begin(known(_revision(path)))
    wanted = mlflow_tables()
    left_out: dict[str, int] = {}
    with _opened(path) as lines:
        for line in lines:
            block = _COPY.fullmatch(line)
            table = block["table"].decode() if block else ""
            if not block or table not in wanted:
                continue
            if table in NOT_READ:
                left_out[table] = sum(1 for _ in iter(lines.readline, _END))
                continue
            if table in archive.rows():
                raise CannotRunError(f"{path} has {table} twice: dump one schema, `pg_dump --schema=…`")
            columns = [name.strip().strip('"') for name in block["columns"].decode().split(",")]
            with archive.part(table, table, columns) as part:
                for row in iter(lines.readline, _END):
                    if not row:
                        raise CannotRunError(f"{path} ends within the rows of {table}: dump it again")
                    part.write(row)
            if part.rows:
                say(f"read {table}: {part.rows:,} rows")
    for table, rows in left_out.items():
        archive.leave_out(table, rows)
    return archive


def _require_plain(path: Path) -> None:
    with _opened(path) as lines:
        first = lines.read(_FIRST)
    if first.startswith(_CUSTOM):
        raise CannotRunError(
            f"{path} is in pg_dump's custom format: make a plain one, "
            f"`pg_restore --no-owner -f dump.sql {path}`"
        )
    if b"MySQL dump" in first or b"MariaDB dump" in first or first.startswith(b"SQLite format 3"):
        raise CannotRunError(
            f"{path} is not a dump of PostgreSQL: load it into a server of its own, and give FROM its URL "
            "(mysql://… or sqlite:///…)"
        )
    if b"PostgreSQL database dump" not in first:
        raise CannotRunError(f"{path} is not a plain dump of pg_dump")


def _revision(path: Path) -> str:
    with _opened(path) as lines:
        for line in lines:
            block = _COPY.fullmatch(line)
            if block and block["table"] == b"alembic_version":
                return lines.readline().decode().strip()
    raise CannotRunError(
        f"{path} has no rows of alembic_version: it is not MLflow's, or was made with --inserts or "
        "--schema-only; `pg_dump --no-owner DATABASE > dump.sql` makes a right one"
    )


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")
