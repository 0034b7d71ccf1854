"""Indexes beside MLflow's own, which the fast path is faster with and works without.

Whoever owns the schema (the migration task) creates them after MLflow's migrations. MLflow neither knows nor
minds them: it compares revisions, not indexes, and its migrations alter tables in place.
"""

from __future__ import annotations

# The newest runs of an experiment, read in this order instead of sorting all runs of the experiment. No
# column of it changes when a run is updated. Two, because MLflow puts runs without a start time first when a
# search names no order, and last when it asks for `start_time DESC`, as the UI does.
NEWEST_RUNS = (
    "CREATE INDEX IF NOT EXISTS mlflow_aws_newest_runs ON runs (experiment_id, start_time DESC, run_uuid)"
)
NEWEST_STARTED_RUNS = (
    "CREATE INDEX IF NOT EXISTS mlflow_aws_newest_started_runs"
    " ON runs (experiment_id, start_time DESC NULLS LAST, run_uuid)"
)

INDEX_STATEMENTS = (NEWEST_RUNS, NEWEST_STARTED_RUNS)
