"""Every place in MLflow's tables that names artifacts by URI, and moving all of them to another root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg2 import errors
from psycopg2.sql import SQL, Composable, Identifier, Literal

# The column, and which rows it counts for. References (runs:/, models:/) name ids, which stay.
_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("experiments", "artifact_location", "TRUE"),
    ("runs", "artifact_uri", "TRUE"),
    ("logged_models", "artifact_location", "TRUE"),
    ("model_versions", "source", "TRUE"),
    ("model_versions", "storage_location", "TRUE"),
    ("trace_tags", "value", "key IN ('mlflow.artifactLocation', 'mlflow.trace.archiveLocation')"),
    ("workspaces", "default_artifact_root", "TRUE"),
    ("workspaces", "trace_archival_location", "TRUE"),
)
# A JSON object, whose strings MLflow resolves when somebody loads the data set of a run.
_DOCUMENTS: tuple[tuple[str, str], ...] = (("datasets", "dataset_source"),)


class LongUriError(ValueError):
    """A URI under the new root is longer than MLflow's column."""


def rewrite(cursor: Any, schema: str, old_root: str, new_root: str) -> dict[str, int]:
    """Move every URI that is `old_root`, or below it, to `new_root`; returns the rows for each table.column.

    `schema` has MLflow's tables at the newest revision. It runs in the caller's transaction, as the tables'
    owner. Seals stay: their manifests, which they name by digest, name the bucket too.

    Raises:
        LongUriError: `new_root` makes a URI longer than its column; the transaction has failed.
    """
    old, new = old_root.rstrip("/"), new_root.rstrip("/")
    changed: Mapping[str, Any] = {"old": old, "below": f"{old}/", "new": new, "length": len(old)}
    counts = {}
    for table, column, rows in _COLUMNS:
        counts[f"{table}.{column}"] = _run(
            cursor,
            "UPDATE {table} SET {column} = %(new)s || substr({column}, %(length)s + 1)"
            " WHERE {rows} AND ({column} = %(old)s OR starts_with({column}, %(below)s))",
            (schema, table, column),
            changed,
            rows=SQL(rows),
        )
    for table, column in _DOCUMENTS:
        counts[f"{table}.{column}"] = _run(
            cursor,
            "UPDATE {table} SET {column} = replace(replace({column}, {quoted}, {to}), {inside}, {to_inside})"
            " WHERE position({quoted} IN {column}) > 0 OR position({inside} IN {column}) > 0",
            (schema, table, column),
            {},
            quoted=Literal(f'"{old}"'),
            to=Literal(f'"{new}"'),
            inside=Literal(f'"{old}/'),
            to_inside=Literal(f'"{new}/'),
        )
    return counts


def _run(
    cursor: Any, statement: str, where: tuple[str, str, str], values: Mapping[str, Any], **parts: Composable
) -> int:
    schema, table, column = where
    composed = SQL(statement).format(
        table=Identifier(schema, table),
        column=Identifier(column),
        **parts,
    )
    try:
        cursor.execute(composed, values or None)
    except errors.StringDataRightTruncation as error:
        raise LongUriError(
            f"{table}.{column}: a URI under the new root is longer than MLflow's column "
            f"({' '.join(str(error).split())}). Choose a shorter root."
        ) from error
    return int(cursor.rowcount)
