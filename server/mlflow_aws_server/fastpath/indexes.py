"""Indexes beside MLflow's own; the fast path is faster with them and works without.

The migration task, which owns the schema, creates them after MLflow's migrations. MLflow ignores them: it
compares revisions, not indexes, and its migrations alter tables in place.
"""

from __future__ import annotations

# An experiment's newest runs are read in index order instead of sorting all of its runs. Updating a run
# changes none of the indexed columns. There are two because MLflow puts runs without a start time first when
# a search names no order, and last when it asks for `start_time DESC`, as the UI does.
NEWEST_RUNS = (
    "CREATE INDEX IF NOT EXISTS mlflow_aws_newest_runs ON runs (experiment_id, start_time DESC, run_uuid)"
)
NEWEST_STARTED_RUNS = (
    "CREATE INDEX IF NOT EXISTS mlflow_aws_newest_started_runs"
    " ON runs (experiment_id, start_time DESC NULLS LAST, run_uuid)"
)

INDEX_STATEMENTS = (NEWEST_RUNS, NEWEST_STARTED_RUNS)
