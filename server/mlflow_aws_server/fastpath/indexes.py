"""Indexes beside MLflow's own; the fast path is faster with them and works without.

The migration task, which owns the schema, builds them after MLflow's migrations. MLflow ignores them: it
compares revisions, not indexes, and its migrations alter tables in place.
"""

from __future__ import annotations

from collections.abc import Mapping

from psycopg2 import errors
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class
from psycopg2.sql import SQL, Identifier

# An experiment's newest runs are read in index order instead of sorting all of its runs. Updating a run
# changes none of the indexed columns. There are two because MLflow puts runs without a start time first when
# a search names no order, and last when it asks for `start_time DESC`, as the UI does.
INDEXES: Mapping[str, str] = {
    "mlflow_aws_newest_runs": "runs (experiment_id, start_time DESC, run_uuid)",
    "mlflow_aws_newest_started_runs": "runs (experiment_id, start_time DESC NULLS LAST, run_uuid)",
    # Each write to a run or a logged model asks which versions rest on it (lineage.py).
    "mlflow_aws_versions_of_models": "model_versions (substring(source from 'm-[0-9a-f]{32}'))",
    "mlflow_aws_versions_of_runs": "model_versions (run_id)",
    # Whether the server wrote a name that a client copies (provenance/evidence.py).
    "mlflow_aws_authors_of_runs": (
        "tags (md5(value), key)"
        " WHERE key IN ('mlflow.user', 'mlflow_aws.claimed_user', 'mlflow_aws.principal')"
    ),
}
# Building waits for transactions that were open before it. It blocks nobody meanwhile, but must end.
PATIENCE = "15min"


def build(connection: Connection, *, patience: str = PATIENCE) -> list[str]:
    """As the tables' owner, outside a transaction: build what is missing, beside readers and writers.

    Returns the names of those that an older transaction held up for longer than `patience`; the next call
    builds them.
    """
    held_up = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", (patience,))
        for name, columns in INDEXES.items():
            try:
                # Building that was interrupted leaves an index that is kept up to date and never used.
                if _is_valid(cursor, name) is False:
                    cursor.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier(name)))
                cursor.execute(
                    SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON ").format(Identifier(name))
                    + SQL(columns)
                )
            except errors.LockNotAvailable:
                held_up.append(name)
    return held_up


def _is_valid(cursor: object, name: str) -> bool | None:
    """Whether an index can be used; None if there is none."""
    cursor.execute(  # type: ignore[attr-defined]
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (f"public.{name}",)
    )
    row = cursor.fetchone()  # type: ignore[attr-defined]
    return bool(row[0]) if row else None
