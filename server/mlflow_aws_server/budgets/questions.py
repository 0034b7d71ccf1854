"""What a search would cost the database, judged by its text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from sqlparse import tokens
from sqlparse.lexer import tokenize

from mlflow_aws_server import limits
from mlflow_aws_server.budgets import graphql
from mlflow_aws_server.limits import Limit

_V2 = """
experiments/search runs/search metrics/get-history metrics/get-history-bulk metrics/get-history-bulk-interval
registered-models/search registered-models/get-latest-versions model-versions/search logged-models/search
traces unified-traces traces/delete-traces traces/link-to-run experiments/search-datasets webhooks
"""
_V3 = """
traces/search traces/metrics traces/batchGetInfos traces/batchGet traces/calculate-filter-correlation
traces/delete-traces datasets/search issues/search label-schemas/list review-queues/list
review-queues/items/list review-queues/items/add review-queues/items/remove scorers/list
scorers/online-configs
"""
# Without its slash, MLflow serves it too.
_ODD = "2.0mlflow/experiments/search-datasets"
PATHS = frozenset(
    prefix + path
    for prefix in ("/api/", "/ajax-api/")
    for path in (
        *("2.0/mlflow/" + path for path in _V2.split()),
        *("3.0/mlflow/" + path for path in _V3.split()),
        _ODD,
    )
)
VARIABLE = re.compile(
    r"/(?:ajax-)?api/3\.0/mlflow/datasets/[^/]+/(?:records|add-experiments|remove-experiments)", re.DOTALL
)
"""Of one data set. `POST …/records` brings data: it is no question."""

FILTERS = frozenset(("filter", "filter_string", "filter_string1", "filter_string2", "base_filter", "filters"))
"""Fields with conditions, wherever MLflow has them; one name means one thing on all routes."""
COUNTED: Mapping[str, Limit] = {
    "order_by": limits.ORDER,
    "experiment_ids": limits.EXPERIMENTS,
    "locations": limits.IDS,
    "run_id": limits.IDS,
    "run_ids": limits.IDS,
    "trace_ids": limits.IDS,
    "request_ids": limits.IDS,
    "item_ids": limits.IDS,
    "scorer_ids": limits.IDS,
    "dataset_record_ids": limits.IDS,
    "datasets": limits.AGGREGATIONS,
    "stages": limits.AGGREGATIONS,
    "aggregations": limits.AGGREGATIONS,
    "dimensions": limits.AGGREGATIONS,
}
"""Fields with lists."""
PAGES = frozenset(("max_results", "max_traces"))


def _as_json_names(names: Iterable[str]) -> dict[str, str]:
    """Both spellings that protobuf's JSON has for a field, to the first."""
    both = {re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name): name for name in names}
    return both | {name: name for name in names}


_FIELDS = _as_json_names((*FILTERS, *COUNTED, *PAGES))

# Each comparison that MLflow finds has one of these outside quotes. `;` begins another statement, of which
# MLflow takes none but which take its parser minutes.
_OPERATOR = re.compile(r"[=<>!~]+|(?<![A-Za-z_])(?:[ir]?like|in|is)(?![A-Za-z0-9_])|;", re.IGNORECASE)
_RLIKE = re.compile("rlike", re.IGNORECASE)
_BACK_REFERENCE = re.compile(r"\\[1-9]")
_QUOTED = (tokens.Literal.String, tokens.Comment)
# A filter whose text is mostly quoted operators; more pieces are not looked at.
_MOST_TOKENS = 1000


SHORT = 1_000
"""In bytes. To judge a longer question may take milliseconds."""


def judges(method: str, path: str) -> bool:
    """Whether requests of this path and method are questions."""
    if path in PATHS or path == "/graphql":
        return True
    return (
        "/datasets/" in path
        and VARIABLE.fullmatch(path) is not None
        and not (method == "POST" and path.endswith("/records"))
    )


def check(method: str, path: str, query: bytes, body: bytes) -> None:
    """Refuse a search that the database should not be asked.

    `path` is decoded, `query` as it came, `body` whole and plain; `method` in upper case.

    Raises:
        LimitError: it is beyond a limit.
    """
    if not judges(method, path):
        return
    if path == "/graphql":
        limits.QUESTION.check(len(body))
        graphql.check(_parsed(body), judge)
        return
    page = limits.POINTS if path.endswith("/metrics/get-history") else limits.PAGE
    # MLflow reads one of the two, depending on the method; together they are no less.
    if query:
        limits.IDS.check(query.count(b"&"))
        judge(parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True, errors="replace"), page)
    if body:
        limits.QUESTION.check(len(body))
        fields = _parsed(body)
        if isinstance(fields, dict):
            judge(fields.items(), page)


def judge(fields: Iterable[tuple[str, Any]], page: Limit = limits.PAGE) -> None:
    """Refuse what is too much in these fields together; a name may come more than once, in both spellings.

    Raises:
        LimitError: they are beyond a limit.
    """
    filters: list[str] = []
    counts: dict[str, int] = {}
    for spelt, value in fields:
        name = _FIELDS.get(spelt)
        if name is None or value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if name in FILTERS:
            filters += [text for text in values if isinstance(text, str)]
        elif name in PAGES:
            for size in values:
                _check_page(size, page)
        else:
            counts[name] = counts.get(name, 0) + len(values)
            if name == "order_by":
                limits.FILTER.check(sum(len(text) for text in values if isinstance(text, str)))
    for name, count in counts.items():
        COUNTED[name].check(count)
    if filters:
        _check_filters(filters)


def _check_filters(filters: list[str]) -> None:
    limits.FILTER.check(sum(map(len, filters)))
    # What is in quotes counts at first; if that is too much, MLflow's own lexer says what is in quotes.
    if sum(len(_OPERATOR.findall(text)) for text in filters) > limits.CONDITIONS.most:
        limits.CONDITIONS.check(sum(map(_conditions, filters)))
    for text in filters:
        patterns = len(_RLIKE.findall(text))
        if patterns:
            limits.PATTERNS.check(patterns)
            limits.PATTERN.check(len(text))
            limits.REPETITIONS.check(text.count("{"))
            limits.BACK_REFERENCES.check(len(_BACK_REFERENCE.findall(text)))


def _conditions(text: str) -> int:
    """No fewer than MLflow finds in a filter; it stops where there are too many."""
    found = 0
    for position, (kind, value) in enumerate(tokenize(text)):  # type: ignore[no-untyped-call]
        if not any(kind in quoted for quoted in _QUOTED):
            found += len(_OPERATOR.findall(value))
        if found > limits.CONDITIONS.most:
            break
        if position > _MOST_TOKENS:
            return limits.CONDITIONS.most + 1
    return found


def _check_page(size: object, page: Limit) -> None:
    if isinstance(size, (str, int, float)):
        try:
            number = int(size)
        except (ValueError, OverflowError):
            # MLflow refuses it.
            return
        page.check(number)


def _parsed(body: bytes) -> Any:
    """A body's JSON as MLflow reads it: in any encoding, and in a string again. None if it cannot be read."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        # What only Python reads: NaN, other encodings, lone surrogates.
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            return None
    if isinstance(parsed, str):
        try:
            return json.loads(parsed)
        except (ValueError, RecursionError):
            return None
    return parsed
