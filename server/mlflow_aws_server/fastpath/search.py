"""`runs/search`: MLflow's own grammar and conditions, compiled once per query, in one statement.

MLflow's own functions parse the filter and the order and turn them into SQL, so they mean the same here. What
differs: the same statement that finds a page of runs fetches their metrics, params and tags; and DISTINCT,
which makes PostgreSQL sort all matching runs on all columns before it returns the first, is left out where a
run cannot match twice.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from mlflow.entities import ViewType
from mlflow.entities.lifecycle_stage import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD
from mlflow.store.tracking.dbmodels.models import SqlRun
from mlflow.store.tracking.sqlalchemy_store import _get_orderby_clauses, _get_sqlalchemy_filter_clauses
from mlflow.utils.search_utils import SearchUtils
from sqlalchemy import orm
from sqlalchemy.dialects.postgresql import asyncpg as postgresql

from mlflow_aws_server import aside
from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.fastpath import reading, rendering, requests
from mlflow_aws_server.fastpath.errors import LeaveToStockError

_FIELDS = frozenset(("experiment_ids", "filter", "run_view_type", "max_results", "order_by", "page_token"))
_VIEWS = {
    "ACTIVE_ONLY": ViewType.ACTIVE_ONLY,
    "DELETED_ONLY": ViewType.DELETED_ONLY,
    "ALL": ViewType.ALL,
}
_DEFAULT_MAX_RESULTS = 1000
# A longer page is answered with its first runs and a token, as is one with more bytes than
# `reading.PAGE_BYTES`: it would fill the memory.
_MOST_RUNS = 2000
# Statements of longer queries are not kept: a list of ids does not come twice.
_LONGEST_KEPT = 1_000
_KEPT = 512

_NEWEST_FIRST = ("attribute", "start_time", False)

_DIALECT: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
_RUN = rendering.RunRenderer(4)


@dataclass(frozen=True, slots=True)
class _Statement:
    """SQL and its arguments; a `_Slot` stands for an argument that each request brings.

    `selective`: its cost depends on the arguments' values.
    """

    sql: str
    arguments: tuple[object, ...]
    selective: bool


class _Slot(str):
    """The place of an argument that each request brings."""

    __slots__ = ()


_EXPERIMENTS, _OFFSET, _LIMIT = _Slot("experiments"), _Slot("offset"), _Slot("limit")


async def search_runs(pool: ConnectionPool, raw: bytes) -> bytes:
    """`runs/search`."""
    fields = requests.body(raw)
    requests.only(fields, _FIELDS)
    experiments = [requests.experiment_id(e) for e in requests.listed(fields, "experiment_ids")]
    view = fields.get("run_view_type", "ACTIVE_ONLY")
    if type(view) is not str or view not in _VIEWS:
        raise LeaveToStockError("the view type is not valid")
    max_results = requests.int32(fields.get("max_results", _DEFAULT_MAX_RESULTS))
    if not 1 <= max_results <= SEARCH_MAX_RESULTS_THRESHOLD:
        raise LeaveToStockError("the page size is not valid")
    max_results = min(max_results, _MOST_RUNS)
    offset = requests.page_offset(requests.text(fields.get("page_token", "")) or None)
    filter_string = requests.text(fields.get("filter", ""))
    order_by = tuple(requests.text(clause) for clause in requests.listed(fields, "order_by"))
    if not experiments:
        return rendering.EMPTY
    statement = await _statement((filter_string, order_by, view, len(experiments) == 1))
    own: dict[object, object] = {
        _EXPERIMENTS: experiments[0] if len(experiments) == 1 else experiments,
        _OFFSET: offset,
        _LIMIT: max_results + 1,
    }
    arguments = [own[a] if isinstance(a, _Slot) else a for a in statement.arguments]

    async def read(connection: AsyncConnection) -> tuple[int, list[Any], reading.Links]:
        if statement.selective:
            # PostgreSQL plans an unnamed statement for these values. For one that it keeps, it makes one plan
            # for all values, which is up to 30 times as slow where keys differ.
            rows = await (await connection.prepare(statement.sql, name="")).fetch(*arguments)
        else:
            rows = await connection.fetch(statement.sql, *arguments)
        found = rows[0]["found"] if rows else 0
        return found, *await reading.fitting(connection, rows[:max_results], [row["bytes"] for row in rows])

    found, rows, linked = await pool.run(read)
    token = None
    if found > len(rows):
        token = SearchUtils.create_page_token(offset + len(rows)).decode("ascii")

    def render() -> bytes:
        shown = [reading.render(_RUN, row, linked, model_inputs=False) for row in rows]
        return rendering.listed("runs", shown, next_page_token=token)

    # A run alone may carry more than a page of others.
    items = sum(
        1 + len(row["metric_keys"] or ()) + len(row["param_keys"] or ()) + len(row["tag_keys"] or ())
        for row in rows
    )
    return render() if items <= aside.FEW_ITEMS else await aside.ANSWERS.run(render)


_Query = tuple[str, tuple[str, ...], str, bool]
_kept: OrderedDict[_Query, _Statement] = OrderedDict()


async def _statement(query: _Query) -> _Statement:
    """The statement for a query; a new one is compiled beside the event loop, which takes up to 0.3 s."""
    statement = _kept.get(query)
    if statement is not None:
        _kept.move_to_end(query)
        return statement
    statement = await aside.ANSWERS.run(_compiled, *query)
    if len(query[0]) + sum(map(len, query[1])) <= _LONGEST_KEPT:
        _kept[query] = statement
        if len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return statement


def _compiled(filter_string: str, order_by: tuple[str, ...], view: str, one_experiment: bool) -> _Statement:
    """The statement for a query.

    Raises:
        LeaveToStockError: MLflow refuses the query; stock will say why.
    """
    page, arguments, selective = _page(filter_string, order_by, view, one_experiment)
    columns = ", ".join("r." + column for column in reading.RUN_COLUMNS)
    # Sorted before the rest is joined, the runs pass one by one, and what does not fit is held by nobody.
    sql = f"""
WITH page AS MATERIALIZED (
        SELECT q.*, row_number() OVER () AS position FROM ({page}) q
    )
SELECT * FROM (
    SELECT {columns}, {reading.BELONGING_COLUMNS}, {reading.LINKED}, {reading.BYTES} AS bytes,
           (SELECT count(*) FROM page) AS found, r.position,
           sum(coalesce({reading.BYTES}, 1e9)::float8) OVER (ORDER BY r.position ROWS UNBOUNDED PRECEDING)
               AS bytes_so_far
    FROM (SELECT * FROM page ORDER BY position) r {reading.BELONGINGS}
) carried
WHERE position = 1 OR bytes_so_far <= {reading.PAGE_BYTES}
ORDER BY position
"""  # noqa: S608 - values are arguments, never text
    return _Statement(sql, arguments, selective)


def _page(
    filter_string: str, order_by: tuple[str, ...], view: str, one_experiment: bool
) -> tuple[str, tuple[object, ...], bool]:
    # Only builds expressions; this session has no database.
    session = orm.Session()
    try:
        conditions = SearchUtils.parse_search_filter(filter_string)
        cases, order, sorting_joins = _get_orderby_clauses(list(order_by), session)
        if [SearchUtils.parse_order_by_for_search_runs(clause) for clause in order_by] == [_NEWEST_FIRST]:
            # MLflow writes this as a CASE, which no index can serve.
            cases, order = [], [SqlRun.start_time.desc().nulls_last(), SqlRun.run_uuid]
        on_runs, on_others, on_datasets = _get_sqlalchemy_filter_clauses(conditions, session, "postgresql")
    except (MlflowException, ValueError):
        raise LeaveToStockError("MLflow refuses the query") from None
    columns = [getattr(SqlRun, column) for column in reading.RUN_COLUMNS]
    statement = sqlalchemy.select(*columns, *cases)
    for condition in on_others:
        statement = statement.join(condition)
    for condition in on_datasets:
        statement = statement.join(condition, SqlRun.run_uuid == condition.c.destination_id)
    for join in sorting_joins:
        statement = statement.outerjoin(join)
    if on_datasets:
        # The other joins are on primary keys, so only datasets can make a run match twice.
        statement = statement.distinct()
    experiments = sqlalchemy.bindparam("fp_experiments", 0, type_=sqlalchemy.Integer)
    many = sqlalchemy.bindparam("fp_experiments", [0], type_=sqlalchemy.ARRAY(sqlalchemy.Integer))
    statement = (
        statement.where(
            SqlRun.experiment_id == experiments
            if one_experiment
            else SqlRun.experiment_id == sqlalchemy.any_(many),
            SqlRun.lifecycle_stage.in_(sorted(LifecycleStage.view_type_to_stages(_VIEWS[view]))),
            *on_runs,
        )
        .order_by(*order)
        .offset(sqlalchemy.bindparam("fp_offset", 0, type_=sqlalchemy.BigInteger))
        .limit(sqlalchemy.bindparam("fp_limit", 0, type_=sqlalchemy.BigInteger))
    )
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    slots = {"fp_experiments": _EXPERIMENTS, "fp_offset": _OFFSET, "fp_limit": _LIMIT}
    values = compiled.params
    arguments = tuple(slots.get(name, values[name]) for name in compiled.positiontup or ())
    return str(compiled), arguments, bool(conditions or sorting_joins)
