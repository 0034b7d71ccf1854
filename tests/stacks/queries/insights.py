"""The commands of CloudWatch Logs Insights that the saved queries use, over lines of JSON.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html: a field of a nested object is
named with dots, one of an array by its number; null is no value. Unlike there, a field that no line has is
an error, since a query that names it is wrong.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Expression = Callable[[Row], Any]
_TOKENS = re.compile(r'\s*("(?:[^"\\]|\\.)*"|/(?:[^/\\]|\\.)+/|[@A-Za-z_][\w@.]*|\d+(?:\.\d+)?|!=|[=(),*+-])')
_SUMMARIES: Mapping[str, Callable[..., Any]] = {
    "max": max,
    "min": min,
    "latest": lambda values: values[-1],
    "pct": lambda values, percent: sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)],
}


class UnknownFieldError(ValueError):
    """No line has a field of this name."""


def answer(query: str, lines: Iterable[str]) -> list[Row]:
    """The rows of a query's result."""
    rows = [dict(_flat(json.loads(line))) for line in lines]
    for row in rows:
        row["@timestamp"] = row.get("time") or row["timestamp"]
    rows.sort(key=lambda row: str(row["@timestamp"]))
    shown: list[str] = []
    for command in re.split(r"\s*\n\|\s*", query.strip()):
        tokens = _Tokens(command, {name for row in rows for name in row})
        name = tokens.take()
        if name == "fields":
            columns = tokens.columns()
            rows = [row | {alias: value(row) for alias, value in columns.items()} for row in rows]
            shown = list(columns)
        elif name == "filter":
            condition = tokens.condition()
            rows = [row for row in rows if condition(row)]
        elif name == "stats":
            rows, shown = _stats(tokens, rows)
        elif name == "sort":
            field, direction = tokens.field(), tokens.take()
            assert direction in ("asc", "desc")
            rows.sort(key=lambda row: _sortable(row.get(field)), reverse=direction == "desc")
        else:
            assert name == "limit", name
            rows = rows[: int(tokens.take())]
        assert tokens.at_end(), command
    return [{name: row.get(name) for name in shown} for row in rows]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in pairs:
            yield from _flat(each, f"{path}.{name}" if path else str(name))
    elif value is not None:
        yield path, value


def _sortable(value: Any) -> tuple[int, Any]:
    return (0, 0) if value is None else (1, value)


def _stats(tokens: _Tokens, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    summaries = tokens.summaries()
    keys = tokens.columns()
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(value(row) for value in keys.values()), []).append(row)
    return [
        dict(zip(keys, group, strict=True)) | {name: summary(members) for name, summary in summaries.items()}
        for group, members in groups.items()
    ], [*keys, *summaries]


class _Tokens:
    """What is left of one command."""

    def __init__(self, command: str, fields: set[str]) -> None:
        self._left: list[str] = []
        self._fields = fields
        position = 0
        while command[position:].strip():
            match = _TOKENS.match(command, position)
            assert match, f"not understood: {command[position:]}"
            self._left.append(match[1])
            position = match.end()

    def take(self, *expected: str) -> str:
        token = self._left.pop(0)
        assert not expected or token in expected, token
        return token

    def at_end(self) -> bool:
        return not self._left

    def _next_is(self, *tokens: str) -> bool:
        return bool(self._left) and self._left[0] in tokens

    def _skip(self, *tokens: str) -> bool:
        found = self._next_is(*tokens)
        if found:
            self.take()
        return found

    def field(self) -> str:
        name = self.take()
        if name not in self._fields:
            raise UnknownFieldError(name)
        return name

    def columns(self) -> dict[str, Expression]:
        """`a, b as c, coalesce(d, e) as f`."""
        found: dict[str, Expression] = {}
        while True:
            name = self._left[0]
            value = self._value()
            found[self.take() if self._skip("as") else name] = value
            if not self._skip(","):
                return found

    def summaries(self) -> dict[str, Callable[[Sequence[Row]], Any]]:
        """`count(*) as a, pct(b, 99) as c by`."""
        found: dict[str, Callable[[Sequence[Row]], Any]] = {}
        while True:
            function = self.take()
            self.take("(")
            if function == "count":
                self.take("*")
                summary: Callable[[Sequence[Row]], Any] = len
            else:
                field = self.field()
                more = (float(self.take()),) if self._skip(",") else ()
                summary = _summary(_SUMMARIES[function], field, more)
            self.take(")")
            self.take("as")
            found[self.take()] = summary
            if not self._skip(","):
                self.take("by")
                return found

    def condition(self) -> Expression:
        left = self._and()
        while self._skip("or"):
            left = _both(left, self._and(), any)
        return left

    def _and(self) -> Expression:
        left = self._comparison()
        while self._skip("and"):
            left = _both(left, self._comparison(), all)
        return left

    def _comparison(self) -> Expression:
        if self._skip("not"):
            inner = self._comparison()
            return lambda row: not inner(row)
        if self._skip("("):
            inside = self.condition()
            self.take(")")
            return inside
        if self._skip("ispresent"):
            self.take("(")
            field = self.field()
            self.take(")")
            return lambda row: row.get(field) is not None
        left = self._sum()
        if self._skip("like"):
            pattern = re.compile(self.take()[1:-1].replace(r"\/", "/"))
            return lambda row: pattern.search(str(left(row) or "")) is not None
        compare = {"=": operator.eq, "!=": operator.ne}[self.take()]
        right = self._sum()
        return lambda row: compare(left(row), right(row))

    def _sum(self) -> Expression:
        left = self._term()
        while self._next_is("+", "-"):
            calculate = operator.add if self.take() == "+" else operator.sub
            left = _of_two(calculate, left, self._term())
        return left

    def _term(self) -> Expression:
        if self._left[0][0] in '"0123456789':
            value = json.loads(self.take())
            return lambda _: value
        return self._value()

    def _value(self) -> Expression:
        if self._skip("coalesce"):
            self.take("(")
            fields = [self.field()]
            while self._skip(","):
                fields.append(self.field())
            self.take(")")
            return lambda row: next((row[field] for field in fields if row.get(field) is not None), None)
        field = self.field()
        return lambda row: row.get(field)


def _of_two(calculate: Callable[[Any, Any], Any], one: Expression, other: Expression) -> Expression:
    return lambda row: calculate(one(row), other(row))


def _both(one: Expression, other: Expression, kind: Callable[[Iterable[Any]], bool]) -> Expression:
    return lambda row: kind(each(row) for each in (one, other))


def _summary(
    function: Callable[..., Any], field: str, more: tuple[float, ...]
) -> Callable[[Sequence[Row]], Any]:
    def summary(members: Sequence[Row]) -> Any:
        values = [row[field] for row in members if row.get(field) is not None]
        return function(values, *more) if values else None

    return summary
