"""The rows of a run, a logged model, a trace, an experiment and an evaluation data set, table by table.

MLflow deletes some of them by name, leaves some to foreign keys, and forgets the inputs of a run and what
only those used. Here each table is named, so that what goes can be counted; a test compares the names with
the foreign keys of the schema.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_INPUTS = (
    "(source_type = 'RUN_INPUT' AND source_id = ANY(%(ids)s)"
    " OR source_type = 'RUN_OUTPUT' AND source_id = ANY(%(ids)s)"
    " OR destination_type = 'RUN' AND destination_id = ANY(%(ids)s))"
)
_MODEL_INPUTS = "destination_type IN ('MODEL_INPUT', 'MODEL_OUTPUT') AND destination_id = ANY(%(ids)s)"
# A data set that other runs use too stays.
_ONLY_THEIRS = """dataset_uuid IN (
        SELECT source_id FROM inputs i WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN'
        GROUP BY source_id HAVING bool_and(i.destination_id = ANY(%(ids)s)))
    AND dataset_uuid IN (
        SELECT source_id FROM inputs WHERE source_type = 'DATASET' AND destination_type = 'RUN'
                                       AND destination_id = ANY(%(ids)s))"""


def _of(column: str, *tables: str) -> list[tuple[str, str]]:
    return [(table, f"{column} = ANY(%(ids)s)") for table in tables]


def _associated(kind: str) -> tuple[str, str]:
    return (
        "entity_associations",
        f"source_type = '{kind}' AND source_id = ANY(%(ids)s)"
        f" OR destination_type = '{kind}' AND destination_id = ANY(%(ids)s)",
    )


_IN_QUEUES = "queue_id IN (SELECT queue_id FROM review_queues WHERE experiment_id::text = ANY(%(ids)s))"
_OF_SCORERS = "scorer_id IN (SELECT scorer_id FROM scorers WHERE experiment_id::text = ANY(%(ids)s))"

# In this order: what refers to a row goes before it.
TABLES: dict[str, list[tuple[str, str]]] = {
    "evaluation_dataset_records": _of("dataset_record_id", "evaluation_dataset_records"),
    "evaluation_datasets": [
        _associated("evaluation_dataset"),
        *_of("dataset_id", "evaluation_dataset_tags", "evaluation_dataset_records", "evaluation_datasets"),
    ],
    "assessments": _of("assessment_id", "assessments"),
    "runs": [
        ("datasets", _ONLY_THEIRS),
        ("input_tags", f"input_uuid IN (SELECT input_uuid FROM inputs WHERE {_INPUTS})"),  # noqa: S608 - a constant
        ("inputs", _INPUTS),
        _associated("run"),
        *_of("run_id", "logged_model_metrics"),
        *_of("run_uuid", "metrics", "latest_metrics", "params", "tags", "runs"),
    ],
    "logged_models": [
        ("input_tags", f"input_uuid IN (SELECT input_uuid FROM inputs WHERE {_MODEL_INPUTS})"),  # noqa: S608
        ("inputs", _MODEL_INPUTS),
        *_of("model_id", "logged_model_metrics", "logged_model_params", "logged_model_tags", "logged_models"),
    ],
    "traces": [
        _associated("trace"),
        *_of("item_id", "review_queue_items"),
        *_of("trace_id", "span_metrics", "spans", "assessments"),
        *_of("request_id", "trace_tags", "trace_request_metadata", "trace_metrics", "trace_info"),
    ],
    "experiments": [
        ("review_queue_items", _IN_QUEUES),
        ("review_queue_users", _IN_QUEUES),
        ("review_queue_label_schemas", _IN_QUEUES),
        ("scorer_versions", _OF_SCORERS),
        _associated("experiment"),
        *_of(
            "experiment_id::text",
            "review_queues",
            "label_schemas",
            "online_scoring_configs",
            "scorers",
            "issues",
            "datasets",
            "experiment_tags",
            "sql_trace_rollup_rebuild_queue",
            "sql_trace_metric_daily_rollups",
            "sql_span_cost_daily_rollups",
            "sql_assessment_daily_rollups",
            "experiments",
        ),
    ],
}
"""Of each kind: its tables, its own the last, and the condition for the rows of `%(ids)s`, a list of text."""

PLACES_OF_TRACE = """ARRAY(SELECT value FROM trace_tags t WHERE t.request_id = i.request_id
    AND key IN ('mlflow.artifactLocation', 'mlflow.trace.archiveLocation'))"""
"""Of a trace `i`: where its attachments and its archive are."""


def tally(cursor: Any, things: Mapping[str, Sequence[str]]) -> Counter[str]:
    """How many rows of each table belong to any of these, each row once."""
    conditions: dict[str, list[str]] = {}
    for kind in things:
        for table, condition in TABLES[kind]:
            conditions.setdefault(table, []).append(f"({condition.replace('%(ids)s', f'%({kind})s')})")
    seen: Counter[str] = Counter()
    for table, any_of in conditions.items():
        cursor.execute(f"SELECT count(*) FROM {table} WHERE {' OR '.join(any_of)}", things)  # noqa: S608 - constants
        seen[table] = cursor.fetchone()[0]
    return +seen


def count(cursor: Any, kind: str, ids: Sequence[str]) -> Counter[str]:
    """How many rows of each table belong to these."""
    return _run(cursor, "SELECT count(*) FROM", kind, ids)


def delete(cursor: Any, kind: str, ids: Sequence[str]) -> Counter[str]:
    """Delete the rows of these; returns how many of each table."""
    return _run(cursor, "DELETE FROM", kind, ids)


def _run(cursor: Any, verb: str, kind: str, ids: Sequence[str]) -> Counter[str]:
    seen: Counter[str] = Counter()
    for table, condition in TABLES[kind] if ids else ():
        cursor.execute(f"{verb} {table} WHERE {condition}", {"ids": list(ids)})
        seen[table] += cursor.rowcount if verb.startswith("DELETE") else cursor.fetchone()[0]
    return +seen
