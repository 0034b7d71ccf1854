"""Indexes beside MLflow's own, which the fast path is faster with and works without.

Whoever owns the schema (the migration task) creates them after MLflow's migrations. MLflow neither knows nor
minds them: it compares revisions, not indexes, and its migrations alter tables in place.
"""

from __future__ import annotations

# The newest runs of an experiment, which is what a search without an order asks for: read in this order
# instead of sorting all runs of the experiment. No column of it changes when a run is updated.
NEWEST_RUNS = (
    "CREATE INDEX IF NOT EXISTS mlflow_aws_newest_runs ON runs (experiment_id, start_time DESC, run_uuid)"
)

INDEX_STATEMENTS = (NEWEST_RUNS,)
