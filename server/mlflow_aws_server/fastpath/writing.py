"""Logging to a run: one statement for each call, or two when params come with other things.

Each statement checks that the run exists and is open, and writes everything or nothing. What MLflow
does in a dozen statements, with the same rows as the result:

- a point that is already stored is skipped;
- a run's latest value of a metric is the greatest by (step, timestamp, value), the first of equals;
- a param keeps its value: logging another one is an error, and then nothing is written;
- a tag takes its last value.

All of them can be repeated without harm, so a broken connection costs a retry and nothing else.

Writers of several rows of one run could deadlock, as each locks the rows in the order its keys came in. So
they hold the run's advisory lock: shared at first, which costs next to nothing and lets all of them in. The
first deadlock makes the run contended, and from then on its writers take turns. Writers of one row need no
lock: while they wait for somebody they hold nothing that somebody else could wait for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import asyncpg

from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool, LostRaceError
from mlflow_aws_server.fastpath import rendering, requests
from mlflow_aws_server.fastpath.errors import LeaveToStockError
from mlflow_aws_server.fastpath.requests import Batch
from mlflow_aws_server.limits import LARGE_BODY
from mlflow_aws_server.lineage import RUNNING, UNPROMOTED, UNREGISTERED, free_models

_OPEN = f"{RUNNING} AND {UNREGISTERED}"

_OPEN_RUN = f"""
    run AS MATERIALIZED (
        SELECT run_uuid, experiment_id FROM runs WHERE run_uuid = $1 AND {_OPEN}
    )"""  # noqa: S608 - only constants

# Only this module uses locks of this class (the first number). Runs with equal hashes share one.
_SHARED_LOCK = "pg_advisory_xact_lock_shared(1835822946, hashtext(run_uuid))"
_EXCLUSIVE_LOCK = _SHARED_LOCK.replace("_lock_shared", "_lock")

_LOCKED_OPEN_RUN = f"""
    run AS MATERIALIZED (
        SELECT run_uuid, experiment_id, {_SHARED_LOCK}
        FROM runs WHERE run_uuid = $1 AND {_OPEN}{{more}}
    )"""  # noqa: S608 - only constants

_KEEP_GREATEST = """ON CONFLICT (key, run_uuid) DO UPDATE
        SET value = EXCLUDED.value, timestamp = EXCLUDED.timestamp, step = EXCLUDED.step,
            is_nan = EXCLUDED.is_nan
        WHERE (EXCLUDED.step, EXCLUDED.timestamp, EXCLUDED.value) > (l.step, l.timestamp, l.value)"""

# A column that is shorter than the others is filled up with NULL.
# The points are written in the order of their primary key, which visits each index page once. The latest
# values are written in the order their keys came in, which is the order in which MLflow shows them.
_POINTS = f""",
    point AS MATERIALIZED (
        SELECT p.key, p.value, p.timestamp, p.step, coalesce(p.is_nan, false) AS is_nan, p.position,
               coalesce(p.first_seen, p.position) AS first_seen, run.run_uuid
        FROM run, unnest($2::text[], $3::float8[], $4::int8[], $5::int8[], $6::bool[], $7::int4[])
             WITH ORDINALITY AS p (key, value, timestamp, step, is_nan, first_seen, position)
    ),
    stored AS (
        INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
        SELECT key, value, timestamp, step, is_nan, run_uuid FROM point
        ORDER BY key, timestamp, step, value, position
        ON CONFLICT DO NOTHING
    ),
    latest AS (
        INSERT INTO latest_metrics AS l (key, value, timestamp, step, is_nan, run_uuid)
        SELECT key, value, timestamp, step, is_nan, run_uuid FROM point
        WHERE first_seen > 0 ORDER BY first_seen
        {_KEEP_GREATEST}
    )"""  # noqa: S608 - only constants

# No ON CONFLICT: what MLflow does about a point that exists depends on its value, and it also handles a
# missing model; so either error hands the whole call to it.
_MODEL_POINTS = """,
    model_point AS (
        INSERT INTO logged_model_metrics
            (model_id, metric_name, metric_timestamp_ms, metric_step, metric_value, experiment_id, run_id,
             dataset_uuid, dataset_name, dataset_digest)
        SELECT m.model_id, m.key, m.timestamp, m.step, m.value, run.experiment_id, run.run_uuid, NULL,
               m.dataset_name, m.dataset_digest
        FROM run, unnest({first}::text[], {second}::text[], {third}::int8[], {fourth}::int8[],
                         {fifth}::float8[], {sixth}::text[], {seventh}::text[])
             AS m (model_id, key, timestamp, step, value, dataset_name, dataset_digest)
    )"""

_TAGS = """,
    tagged AS (
        INSERT INTO tags AS t (key, value, run_uuid)
        SELECT n.key, n.value, run.run_uuid
        FROM run, unnest({first}::text[], {second}::text[]) WITH ORDINALITY AS n (key, value, position)
        ORDER BY n.position
        ON CONFLICT (key, run_uuid) DO UPDATE SET value = EXCLUDED.value
        WHERE t.value IS DISTINCT FROM EXCLUDED.value
    )"""

# A param that exists with this value counts as logged; with another value it does not, even if a concurrent
# writer was faster. If only some count, the division fails, and with it the statement.
_LOG_PARAMS = f"""
WITH {_LOCKED_OPEN_RUN.format(more="")},
    logged AS (
        INSERT INTO params AS p (key, value, run_uuid)
        SELECT n.key, n.value, run.run_uuid
        FROM run, unnest($2::text[], $3::text[]) WITH ORDINALITY AS n (key, value, position)
        ORDER BY n.position
        ON CONFLICT (key, run_uuid) DO UPDATE SET value = EXCLUDED.value WHERE p.value = EXCLUDED.value
        RETURNING 1
    )
SELECT count(*) / (CASE WHEN count(*) IN (0, cardinality($2)) THEN 1 ELSE 0 END) FROM logged
"""  # noqa: S608 - only constants

# Calls that log one thing are the most frequent; without arrays they cost PostgreSQL a tenth less.
_LOG_ONE_METRIC = f"""
WITH {_OPEN_RUN},
    stored AS (
        INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
        SELECT $2::text, $3::float8, $4::int8, $5::int8, $6::bool, run_uuid FROM run
        ON CONFLICT DO NOTHING
    ),
    latest AS (
        INSERT INTO latest_metrics AS l (key, value, timestamp, step, is_nan, run_uuid)
        SELECT $2::text, $3::float8, $4::int8, $5::int8, $6::bool, run_uuid FROM run
        {_KEEP_GREATEST}
    )
SELECT 1 FROM run
"""  # noqa: S608 - only constants
_LOG_ONE_PARAM = f"""
INSERT INTO params AS p (key, value, run_uuid)
SELECT $2::text, $3::text, run_uuid FROM runs WHERE run_uuid = $1 AND {_OPEN}
ON CONFLICT (key, run_uuid) DO UPDATE SET value = EXCLUDED.value WHERE p.value = EXCLUDED.value
RETURNING 1
"""  # noqa: S608 - only constants
_SET_ONE_TAG = f"""
INSERT INTO tags (key, value, run_uuid)
SELECT $2::text, $3::text, run_uuid FROM runs WHERE run_uuid = $1 AND {_OPEN}
ON CONFLICT (key, run_uuid) DO UPDATE SET value = EXCLUDED.value
RETURNING 1
"""  # noqa: S608 - only constants


def _log_statement(*, metrics: bool, for_models: bool, tags: bool) -> str:
    statement = ""
    only_if = ""
    used = 1
    if metrics:
        statement += _POINTS
        used += 6
    if for_models:
        names = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
        statement += _MODEL_POINTS.format(**{name: f"${used + 1 + i}" for i, name in enumerate(names)})
        only_if = f" AND {free_models(f'${used + 1}::text[]')}"
        used += len(names)
    if tags:
        statement += _TAGS.format(first=f"${used + 1}", second=f"${used + 2}")
    return f"WITH {_LOCKED_OPEN_RUN.format(more=only_if)}{statement}\nSELECT 1 FROM run"


_LOG = {
    (metrics, for_models, tags): _log_statement(metrics=metrics, for_models=for_models, tags=tags)
    for metrics in (False, True)
    for for_models in (False, True)
    for tags in (False, True)
}


async def log_batch(pool: ConnectionPool, raw: bytes) -> bytes:
    """`runs/log-batch`."""
    if len(raw) > LARGE_BODY:
        return await _log(pool, await asyncio.to_thread(requests.log_batch, raw))
    return await _log(pool, requests.log_batch(raw))


async def log_metric(pool: ConnectionPool, raw: bytes) -> bytes:
    """`runs/log-metric`."""
    return await _log(pool, requests.log_metric(raw))


async def log_param(pool: ConnectionPool, raw: bytes) -> bytes:
    """`runs/log-parameter`."""
    return await _log(pool, requests.log_param(raw))


async def set_tag(pool: ConnectionPool, raw: bytes) -> bytes:
    """`runs/set-tag`."""
    return await _log(pool, requests.set_tag(raw))


async def _log(pool: ConnectionPool, batch: Batch) -> bytes:
    # MLflow stores params separately and first, so they stay after a later failure.
    if batch.params:
        await _write(pool, batch, _write_params)
        if not len(batch.metrics) and not batch.tags:
            return rendering.EMPTY
    await _write(pool, batch, _write_metrics_and_tags)
    return rendering.EMPTY


async def _write(
    pool: ConnectionPool, batch: Batch, how: Callable[[Batch], tuple[str, list[object]]]
) -> None:
    """Run the statement for `batch`; it returns nothing if a run or param is not as required.

    Raises:
        LeaveToStockError: it returned nothing, and wrote nothing.
    """
    statement, arguments = how(batch)

    async def write(connection: AsyncConnection) -> object:
        run = batch.run_id
        sql = statement.replace(_SHARED_LOCK, _EXCLUSIVE_LOCK) if run in contended else statement
        try:
            if written := await connection.fetchval(sql, *arguments):
                return written
            # Versions may rest on an open run, as long as none was ever promoted.
            return await connection.fetchval(sql.replace(UNREGISTERED, UNPROMOTED), *arguments)
        except asyncpg.DeadlockDetectedError:
            contended.add(run)
            raise LostRaceError("another writer locked the same keys in another order") from None
        except asyncpg.DivisionByZeroError:
            raise LeaveToStockError("some of the params have another value") from None

    if not await pool.run(write):
        raise LeaveToStockError("the run does not exist or is not open, or a param has another value")


class ContendedRuns:
    """The last runs whose writers deadlocked in this process."""

    def __init__(self, *, most: int = 1024) -> None:
        self._runs: OrderedDict[str, None] = OrderedDict()
        self._most = most

    def __contains__(self, run: str) -> bool:
        return run in self._runs

    def add(self, run: str) -> None:
        """Remember `run`, and forget another one if there are too many."""
        self._runs[run] = None
        self._runs.move_to_end(run)
        if len(self._runs) > self._most:
            self._runs.popitem(last=False)


contended = ContendedRuns()


def _write_params(batch: Batch) -> tuple[str, list[object]]:
    if len(batch.params) == 1:
        [(key, value)] = batch.params.items()
        return _LOG_ONE_PARAM, [batch.run_id, key, value]
    return _LOG_PARAMS, [batch.run_id, list(batch.params), list(batch.params.values())]


def _write_metrics_and_tags(batch: Batch) -> tuple[str, list[object]]:
    metrics, tags = batch.metrics, batch.tags
    if len(metrics) == 1 and not metrics.for_models and not tags:
        is_nan = bool(metrics.is_nan)
        point = [metrics.keys[0], metrics.values[0], metrics.timestamps[0], metrics.steps[0], is_nan]
        return _LOG_ONE_METRIC, [batch.run_id, *point]
    if len(tags) == 1 and not len(metrics):
        [(key, value)] = tags.items()
        return _SET_ONE_TAG, [batch.run_id, key, value]
    arguments: list[object] = [batch.run_id]
    if len(metrics):
        arguments += (
            metrics.keys,
            metrics.values,
            metrics.timestamps,
            metrics.steps,
            metrics.is_nan,
            metrics.first_seen,
        )
    if metrics.for_models:
        for_models = list(metrics.for_models.values())
        arguments += (
            [m.model_id for m in for_models],
            [m.key for m in for_models],
            [m.timestamp for m in for_models],
            [m.step for m in for_models],
            [m.value for m in for_models],
            [m.dataset_name for m in for_models],
            [m.dataset_digest for m in for_models],
        )
    if tags:
        arguments += (list(tags), list(tags.values()))
    return _LOG[bool(len(metrics)), bool(metrics.for_models), bool(tags)], arguments
