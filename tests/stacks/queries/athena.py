"""Athena's tables and SQL, as far as the saved queries use them: Hive's RegexSerDe, and SQLite for Trino.

https://docs.aws.amazon.com/athena/latest/ug/regex-serde.html: a line that the expression does not match is a
row of NULLs. What is no number is NULL in a column of numbers.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

Row = dict[str, Any]
_NUMBERS = {"int": int, "bigint": int, "double": float}
# The only piece of Trino's SQL that SQLite has no like of.
_SINCE = "date_format(current_date - interval '7' day, '%Y/%m/%d')"


def rows(table: Mapping[str, Any], lines: Sequence[str]) -> list[list[Any]]:
    """Lines of a log as the rows of a Glue table."""
    storage = table["StorageDescriptor"]
    assert storage["SerdeInfo"]["SerializationLibrary"].endswith(".RegexSerDe")
    pattern = re.compile(storage["SerdeInfo"]["Parameters"]["input.regex"])
    assert pattern.groups == len(storage["Columns"])
    matches = [pattern.fullmatch(line) for line in lines]
    return [
        [
            _typed(match[number], column["Type"]) if match else None
            for number, column in enumerate(storage["Columns"], start=1)
        ]
        for match in matches
    ]


def answer(
    query: str, tables: Mapping[str, tuple[Mapping[str, Any], Sequence[tuple[str, str]]]], *, since: str
) -> list[Row]:
    """The rows of a query's result; each line of a log comes with the day of its folder."""
    assert query.count(_SINCE) == 1, "a query must read some days only, not all"
    with closing(sqlite3.connect(":memory:")) as database:
        database.create_function("regexp_replace", 3, _replaced, deterministic=True)
        database.create_aggregate("approx_percentile", 2, _Percentile)  # type: ignore[arg-type]
        for name, (table, lines) in tables.items():
            columns = [each["Name"] for each in table["StorageDescriptor"]["Columns"]]
            columns += [each["Name"] for each in table["PartitionKeys"]]
            database.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
            filled = rows(table, [line for _, line in lines])
            database.executemany(
                f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})",
                [[*row, day] for row, (day, _) in zip(filled, lines, strict=True)],
            )
        cursor = database.execute(query.replace(_SINCE, f"'{since}'"))
        names = [each[0] for each in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def _typed(text: str | None, kind: str) -> Any:
    if text is None or kind == "string":
        return text
    try:
        return _NUMBERS[kind](text)
    except ValueError:
        return None


def _replaced(text: str | None, pattern: str, replacement: str) -> str | None:
    return None if text is None else re.sub(pattern, re.sub(r"\$(\d)", r"\\\1", replacement), text)


class _Percentile:
    def __init__(self) -> None:
        self._values: list[float] = []
        self._part = 0.0

    def step(self, value: float | None, part: float) -> None:
        self._part = part
        if value is not None:
            self._values.append(value)

    def finalize(self) -> float | None:
        ordered = sorted(self._values)
        return ordered[min(int(len(ordered) * self._part), len(ordered) - 1)] if ordered else None
