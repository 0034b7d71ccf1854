"""What a database holds, as numbers that two databases can be compared by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class
from psycopg2.sql import SQL, Identifier

_COLUMNS = """
    SELECT relname, array_agg(attname::text ORDER BY attname)
      FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
     WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
       AND has_table_privilege(pg_class.oid, 'SELECT')
     GROUP BY relname ORDER BY relname
"""
# A row's text is the same in every database; a sum does not depend on the order.
_COUNT = "SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)), 0)::text FROM {table}"


@dataclass(frozen=True)
class Table:
    """The columns of a table that were read, its rows, and a digest of every value in these columns."""

    columns: tuple[str, ...]
    rows: int
    digest: str


Contents = Mapping[str, Table]


def read(connection: Connection, *, only: Contents | None = None) -> Contents:
    """Count and digest every table, in one snapshot; of the tables in `only`, the columns read there.

    What has gone of these columns is left out, and makes no difference by itself.
    """
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            cursor.execute(_COLUMNS)
            there = {str(name): tuple(columns) for name, columns in cursor.fetchall()}
            return {name: _table(cursor, name, _chosen(name, there[name], only)) for name in there}
        finally:
            cursor.execute("ROLLBACK")


def _chosen(name: str, columns: tuple[str, ...], only: Contents | None) -> tuple[str, ...]:
    if only is None or name not in only:
        return columns
    return tuple(each for each in columns if each in only[name].columns)


def _table(cursor: Any, name: str, columns: Iterable[str]) -> Table:
    chosen = tuple(columns)
    cursor.execute(
        SQL(_COUNT).format(columns=SQL(", ").join(map(Identifier, chosen)), table=Identifier(name))
    )
    rows, digest = cursor.fetchone()
    return Table(chosen, int(rows), str(digest))
