"""The logged points of a metric: of one run, or a sample of many runs for a chart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from mlflow.server.handlers import MAX_RESULTS_PER_RUN, MAX_RUNS_GET_METRIC_HISTORY_BULK
from mlflow.utils.search_utils import SearchUtils

from mlflow_aws_server import aside
from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.fastpath import rendering, requests
from mlflow_aws_server.fastpath.errors import LeaveToStockError
from mlflow_aws_server.fastpath.rendering import number, quote

# A response is built in memory; stock serves longer histories, page by page.
_MOST_POINTS = 50_000

_HISTORY = """
SELECT value, timestamp, step, is_nan FROM metrics
WHERE run_uuid = $1 AND key = $2
ORDER BY timestamp, step, value OFFSET $3 LIMIT $4
"""

# MLflow's own sampling, for all runs at once: of each run the first row of each of $3 equal buckets, and
# always the last row, instead of the last sampled one if there would be too many.
_SAMPLE = """
SELECT run.position, sample.value, sample.timestamp, sample.step, sample.is_nan, sample.first = 1 AS sampled
FROM unnest($1::text[]) WITH ORDINALITY AS run (run_uuid, position),
     LATERAL (
        SELECT *,
               row_number() OVER (PARTITION BY bucket ORDER BY step, timestamp, value, is_nan) AS first,
               row_number() OVER (ORDER BY step DESC, timestamp DESC, value DESC, is_nan DESC) AS last
        FROM (
            SELECT value, timestamp, step, is_nan,
                   ntile($3::int4) OVER (ORDER BY step, timestamp, value, is_nan) AS bucket
            FROM metrics
            WHERE run_uuid = run.run_uuid AND key = $2 {interval}
        ) bucketed
     ) sample
WHERE sample.first = 1 OR sample.last = 1
ORDER BY run.position, sample.step, sample.timestamp, sample.value, sample.is_nan
"""
_SAMPLE_ALL = _SAMPLE.format(interval="")
_SAMPLE_INTERVAL = _SAMPLE.format(interval="AND step >= $4 AND step <= $5")

_HISTORY_ARGUMENTS = frozenset(("run_id", "run_uuid", "metric_key", "max_results", "page_token"))
_INTERVAL_ARGUMENTS = frozenset(("run_ids", "metric_key", "start_step", "end_step", "max_results"))
_ITEMS = rendering.Items(4)


async def history(pool: ConnectionPool, query: bytes) -> bytes:
    """`metrics/get-history`."""
    arguments = requests.query(query, _HISTORY_ARGUMENTS)
    run_id = requests.run_id(requests.single(arguments, "run_id"))
    key = _metric_key(arguments)
    given = requests.optional(arguments, "max_results")
    max_results = None if given is None else requests.decimal(given, least=1)
    offset = requests.page_offset(requests.optional(arguments, "page_token"))
    if max_results is not None and max_results > _MOST_POINTS:
        raise LeaveToStockError("a very long page")
    limit = (_MOST_POINTS if max_results is None else max_results) + 1

    async def read(connection: AsyncConnection) -> Any:
        return await connection.fetch(_HISTORY, run_id, key, offset, limit)

    points = await pool.run(read)
    token = None
    if len(points) == limit:
        if max_results is None:
            raise LeaveToStockError("a very long history")
        points = points[:max_results]
        token = SearchUtils.create_page_token(offset + max_results).decode("ascii")
    metric, name = _ITEMS.metric, quote(key)

    def render() -> bytes:
        shown = [
            metric % (name, number(value, is_nan), timestamp, step)
            for value, timestamp, step, is_nan in points
        ]
        return rendering.listed("metrics", shown, next_page_token=token)

    return render() if len(points) <= aside.FEW_ITEMS else await aside.ANSWERS.run(render)


async def bulk_interval(pool: ConnectionPool, query: bytes) -> bytes:
    """`metrics/get-history-bulk-interval`."""
    arguments = requests.query(query, _INTERVAL_ARGUMENTS)
    run_ids = [requests.run_id(run_id) for run_id in arguments.get("run_ids", ())]
    if not 0 < len(run_ids) <= MAX_RUNS_GET_METRIC_HISTORY_BULK:
        raise LeaveToStockError("no runs, or too many")
    key = _metric_key(arguments)
    given = requests.optional(arguments, "max_results")
    most = MAX_RESULTS_PER_RUN
    max_results = most if given is None else requests.decimal(given, least=1, most=most)
    start, end = (_step(arguments, name) for name in ("start_step", "end_step"))
    if (start is None) != (end is None) or (start is not None and end is not None and start > end):
        raise LeaveToStockError("the interval is not valid")
    interval = () if start is None else (start, end)
    statement = _SAMPLE_INTERVAL if interval else _SAMPLE_ALL

    async def read(connection: AsyncConnection) -> Any:
        return await connection.fetch(statement, run_ids, key, max_results, *interval)

    metric, name = _ITEMS.metric_with_run_id, quote(key)
    points = await pool.run(read)

    def render() -> bytes:
        shown = []
        for position, rows in groupby(points, itemgetter("position")):
            run_id = quote(run_ids[position - 1])
            for row in _sample(list(rows), max_results):
                value = number(row["value"], row["is_nan"])
                shown.append(metric % (name, value, row["timestamp"], row["step"], run_id))
        return rendering.listed("metrics", shown)

    return render() if len(points) <= aside.FEW_ITEMS else await aside.ANSWERS.run(render)


def _sample(rows: Sequence[Any], max_results: int) -> Sequence[Any]:
    if not rows or rows[-1]["sampled"]:
        return rows
    if len(rows) > max_results:
        return [*rows[:-2], rows[-1]]
    return rows


def _metric_key(arguments: dict[str, list[str]]) -> str:
    key = requests.single(arguments, "metric_key")
    if not key or "\x00" in key:
        raise LeaveToStockError("the metric key is not plain")
    return key


def _step(arguments: dict[str, list[str]], name: str) -> int | None:
    given = requests.optional(arguments, name)
    return None if given is None else requests.decimal(given, least=-(2**31))
