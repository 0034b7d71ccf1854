"""Reads whole runs, with their metrics, params and tags: one statement for any number of runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.fastpath import rendering, requests
from mlflow_aws_server.fastpath.errors import LeaveToStockError
from mlflow_aws_server.limits import RUN_BYTES, LimitError

RUN_COLUMNS = (
    "run_uuid",
    "name",
    "experiment_id",
    "user_id",
    "status",
    "start_time",
    "end_time",
    "artifact_uri",
    "lifecycle_stage",
)

# What a row of metrics, params or tags takes of an answer, about; `octet_length` does not read long values.
_ROW_BYTES = "octet_length(key) + 64"
_PAIR_BYTES = f"{_ROW_BYTES} + coalesce(octet_length(value), 0)"
PAGE_BYTES = 16 * 1024 * 1024
"""A page of runs has no more, unless its first run does. It takes six times as much until it is sent."""
_MOST_METRICS = 20_000
_MOST_PAIRS = 2_000
# Together they are within the limit of a run, whatever they hold.
_FEW_METRICS = 2_000
_FEW_PAIRS = 250


def _belongings(metrics: int | None, pairs: int | None, *, sized: bool = True) -> str:
    """For each row of `r`: what the run carries, but no more than one row beyond so many of each.

    In the order it lies in the table, which is the order MLflow's own queries return. Arrays, because one row
    per run costs far less than one per item.
    """

    def size(row: str) -> str:
        return f", count(*) AS found, sum({row}) AS bytes" if sized else ""

    def some(table: str, columns: str, most: int | None) -> str:
        limit = "ALL" if most is None else most + 1
        return f"(SELECT {columns} FROM {table} WHERE run_uuid = r.run_uuid LIMIT {limit})"  # noqa: S608

    return f"""
    LEFT JOIN LATERAL (
        SELECT array_agg(key) AS metric_keys, array_agg(value) AS metric_values,
               array_agg(timestamp) AS metric_timestamps, array_agg(step) AS metric_steps,
               array_agg(is_nan) AS metric_nans{size(_ROW_BYTES)}
        FROM {some("latest_metrics", "key, value, timestamp, step, is_nan", metrics)} taken
    ) m ON TRUE
    LEFT JOIN LATERAL (
        SELECT array_agg(key) AS param_keys, array_agg(value) AS param_values{size(_PAIR_BYTES)}
        FROM {some("params", "key, value", pairs)} taken
    ) p ON TRUE
    LEFT JOIN LATERAL (
        SELECT array_agg(key) AS tag_keys, array_agg(value) AS tag_values{size(_PAIR_BYTES)}
        FROM {some("tags", "key, value", pairs)} taken
    ) t ON TRUE"""  # noqa: S608 - only constants


BELONGINGS = _belongings(_MOST_METRICS, _MOST_PAIRS)
"""For each row of `r`: what the run carries; bounded, so that no run fills the database's memory."""
_SUM = "coalesce(m.bytes, 0) + coalesce(p.bytes, 0) + coalesce(t.bytes, 0)"
BYTES = f"""
    CASE WHEN m.found <= {_MOST_METRICS} AND p.found <= {_MOST_PAIRS} AND t.found <= {_MOST_PAIRS}
        THEN {_SUM} END"""
"""What that takes of an answer; NULL where the run carries more than was read."""

# Whether the run has datasets or models, which then take two more statements.
LINKED = """
    EXISTS (SELECT 1 FROM inputs WHERE destination_type = 'RUN' AND destination_id = r.run_uuid)
        AS has_datasets,
    EXISTS (SELECT 1 FROM inputs WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id = r.run_uuid)
        AS has_models"""

BELONGING_COLUMNS = """
    m.metric_keys, m.metric_values, m.metric_timestamps, m.metric_steps, m.metric_nans,
    p.param_keys, p.param_values, t.tag_keys, t.tag_values"""


def _get_run(belongings: str, size: str) -> str:
    return f"""
SELECT {", ".join("r." + column for column in RUN_COLUMNS)}, {BELONGING_COLUMNS}, {LINKED}{size}
FROM runs r {belongings}
WHERE r.run_uuid = $1
"""  # noqa: S608 - only constants


_GET_RUN = _get_run(_belongings(_FEW_METRICS, _FEW_PAIRS, sized=False), "")
_GET_LARGE_RUN = _get_run(_belongings(None, None), f", {_SUM} AS bytes")
_LARGE_RUN_BYTES = f"""
SELECT coalesce((SELECT sum({_ROW_BYTES}) FROM latest_metrics WHERE run_uuid = $1), 0)
     + coalesce((SELECT sum({_PAIR_BYTES}) FROM params WHERE run_uuid = $1), 0)
     + coalesce((SELECT sum({_PAIR_BYTES}) FROM tags WHERE run_uuid = $1), 0)
"""  # noqa: S608 - only constants

# These two are MLflow's own queries, so that the order of what they return is too.
_DATASETS = """
SELECT i.destination_id AS run_uuid, d.dataset_uuid, d.name, d.digest, d.dataset_source_type,
       d.dataset_source, d.dataset_schema, d.dataset_profile, t.name AS tag_name, t.value AS tag_value
FROM inputs i
     JOIN datasets d ON i.source_id = d.dataset_uuid
     LEFT OUTER JOIN input_tags t ON t.input_uuid = i.input_uuid
WHERE i.destination_type = 'RUN' AND i.destination_id = ANY($1::text[])
ORDER BY run_uuid
"""
_MODELS = """
SELECT source_id AS run_uuid, destination_type, destination_id, step
FROM inputs
WHERE source_id = ANY($1::text[])
  AND (source_type, destination_type) IN (('RUN_INPUT', 'MODEL_INPUT'), ('RUN_OUTPUT', 'MODEL_OUTPUT'))
"""
# What these two return, about.
_LINKED_BYTES = """
SELECT run_uuid, sum(bytes)::int8 AS bytes FROM (
    SELECT i.destination_id AS run_uuid,
           256 + octet_length(d.dataset_source) + coalesce(octet_length(d.dataset_schema), 0)
               + coalesce(octet_length(d.dataset_profile), 0) + coalesce(octet_length(t.value), 0) AS bytes
    FROM inputs i
         JOIN datasets d ON i.source_id = d.dataset_uuid
         LEFT OUTER JOIN input_tags t ON t.input_uuid = i.input_uuid
    WHERE i.destination_type = 'RUN' AND i.destination_id = ANY($1::text[])
    UNION ALL
    SELECT source_id, 256 FROM inputs
    WHERE source_id = ANY($1::text[]) AND source_type IN ('RUN_INPUT', 'RUN_OUTPUT')
) linked GROUP BY run_uuid
"""

_RUN = rendering.RunRenderer(2)
_GET_RUN_ARGUMENTS = frozenset(("run_id", "run_uuid"))


async def get_run(pool: ConnectionPool, query: bytes) -> bytes:
    """`runs/get`."""
    arguments = requests.query(query, _GET_RUN_ARGUMENTS)
    run_id = requests.run_id(requests.single(arguments, "run_id"))

    async def read(connection: AsyncConnection) -> tuple[Any, Links]:
        row = await connection.fetchrow(_GET_RUN, run_id)
        if row is None:
            raise LeaveToStockError("the run does not exist")
        few = _has_few(row)
        if few and not row["has_datasets"] and not row["has_models"]:
            return row, Links()
        [row], linked = await fitting(connection, [row], [_size(row) if few else None])
        return row, linked

    row, linked = await pool.run(read)
    return rendering.wrapped("run", render(_RUN, row, linked, model_inputs=True))


class Links:
    """Datasets and models of some runs, as responses show them."""

    def __init__(self) -> None:
        self.datasets: dict[str, list[dict[str, Any]]] = {}
        self.model_inputs: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.model_outputs: dict[str, list[dict[str, Any]]] = defaultdict(list)


def _has_few(row: Any) -> bool:
    """Whether a run carries no more than `_GET_RUN` reads."""
    return (
        len(row["metric_keys"] or ()) <= _FEW_METRICS
        and len(row["param_keys"] or ()) <= _FEW_PAIRS
        and len(row["tag_keys"] or ()) <= _FEW_PAIRS
    )


def _size(row: Any) -> int:
    """What a run of few items takes of an answer, about."""
    params, tags = row["param_keys"] or (), row["tag_keys"] or ()
    texts = (params, row["param_values"] or (), tags, row["tag_values"] or ())
    items = len(row["metric_keys"] or ()) + len(params) + len(tags)
    return 300 * items + sum(len(text) for some in texts for text in some if text)


async def fitting(
    connection: AsyncConnection, rows: Sequence[Any], sizes: Sequence[int | None]
) -> tuple[list[Any], Links]:
    """As many of these rows as an answer holds, the first of them at least, and what they link to.

    `sizes`: what each takes of the answer; None for one that carries more than was read.

    Raises:
        LimitError: the first alone is more than an answer holds.
    """
    fit = list(rows)
    taken = [size or 0 for size in sizes]
    if fit and sizes[0] is None:
        fit = [await _large(connection, fit[0]["run_uuid"])]
        taken = [fit[0]["bytes"]]
    linking = [row["run_uuid"] for row in fit if row["has_datasets"] or row["has_models"]]
    linked = {}
    if linking:
        linked = {row["run_uuid"]: row["bytes"] for row in await connection.fetch(_LINKED_BYTES, linking)}
    total = 0
    for position, row in enumerate(fit):
        total += taken[position] + linked.get(row["run_uuid"], 0)
        if position == 0:
            _check_size(row["run_uuid"], total)
        elif total > PAGE_BYTES:
            fit = fit[:position]
            break
    return fit, await _links(connection, fit)


def _check_size(run_id: str, size: int) -> None:
    if size > RUN_BYTES.most:
        refusal = LimitError(RUN_BYTES, size)
        refusal.message += f" The run is {run_id}."
        raise refusal


async def _large(connection: AsyncConnection, run_id: str) -> Any:
    """The row of a run that carries more than `BELONGINGS` reads."""
    _check_size(run_id, int(await connection.fetchval(_LARGE_RUN_BYTES, run_id)))
    row = await connection.fetchrow(_GET_LARGE_RUN, run_id)
    if row is None:
        raise LeaveToStockError("the run does not exist")
    return row


async def _links(connection: AsyncConnection, rows: Sequence[Any]) -> Links:
    """The datasets and models of these runs; queries only the runs that have some."""
    linked = Links()
    with_datasets = [row["run_uuid"] for row in rows if row["has_datasets"]]
    if with_datasets:
        linked.datasets = _datasets(await connection.fetch(_DATASETS, with_datasets))
    with_models = [row["run_uuid"] for row in rows if row["has_models"]]
    if with_models:
        for link in await connection.fetch(_MODELS, with_models):
            if link["destination_type"] == "MODEL_INPUT":
                linked.model_inputs[link["run_uuid"]].append({"model_id": link["destination_id"]})
            else:
                output = {"model_id": link["destination_id"], "step": link["step"]}
                linked.model_outputs[link["run_uuid"]].append(output)
    return linked


def _datasets(rows: Sequence[Any]) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        inputs = runs[row["run_uuid"]]
        found = inputs.get(row["dataset_uuid"])
        if found is None:
            dataset = {
                "name": row["name"],
                "digest": row["digest"],
                "source_type": row["dataset_source_type"],
                "source": row["dataset_source"],
            }
            if row["dataset_schema"]:
                dataset["schema"] = row["dataset_schema"]
            if row["dataset_profile"]:
                dataset["profile"] = row["dataset_profile"]
            found = inputs[row["dataset_uuid"]] = {"tags": [], "dataset": dataset}
        if row["tag_name"] is not None:
            found["tags"].append({"key": row["tag_name"], "value": row["tag_value"]})
    shown: dict[str, list[dict[str, Any]]] = {}
    for run, inputs in runs.items():
        # An empty repeated field is left out.
        shown[run] = [{k: v for k, v in entry.items() if v} for entry in inputs.values()]
    return shown


def render(renderer: rendering.RunRenderer, row: Any, linked: Links, *, model_inputs: bool) -> str:
    """One run as the message shows it; only `runs/get` shows the models that a run took as input."""
    run_id = row["run_uuid"]
    inputs: dict[str, Any] = {}
    if linked.datasets.get(run_id):
        inputs["dataset_inputs"] = linked.datasets[run_id]
    if model_inputs and linked.model_inputs.get(run_id):
        inputs["model_inputs"] = linked.model_inputs[run_id]
    outputs: dict[str, Any] = {}
    if linked.model_outputs.get(run_id):
        outputs["model_outputs"] = linked.model_outputs[run_id]
    return renderer.run(
        row,
        tags=_zipped(row, "tag_keys", "tag_values"),
        params=_zipped(row, "param_keys", "param_values"),
        metrics=_zipped(
            row, "metric_keys", "metric_values", "metric_timestamps", "metric_steps", "metric_nans"
        ),
        inputs=inputs,
        outputs=outputs,
    )


def _zipped(row: Any, *columns: str) -> list[Any]:
    return [] if row[columns[0]] is None else list(zip(*(row[column] for column in columns), strict=True))
