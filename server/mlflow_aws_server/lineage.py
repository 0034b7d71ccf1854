"""Which runs and logged models a model version rests on, and whether it was ever promoted, in SQL."""

from __future__ import annotations

# Every stage and alias that a version ever had left a tag of provenance's history. Versions from before
# provenance still show it by what they have now: an archived one keeps its stage.
EVER_PROMOTED = """(
        coalesce(v.current_stage, 'None') <> 'None'
        OR EXISTS (SELECT FROM registered_model_aliases a
                   WHERE a.workspace = v.workspace AND a.name = v.name AND a.version = v.version)
        OR EXISTS (SELECT FROM model_version_tags t
                   WHERE t.workspace = v.workspace AND t.name = v.name AND t.version = v.version
                         AND starts_with(t.key, 'mlflow_aws.history.'))
    )"""
"""Of a version `v`: whether a stage or an alias has ever named it."""

OPEN_STATUSES = ("RUNNING", "SCHEDULED")
"""A run with another status has ended. One without a status is scheduled, as in MLflow."""

UNREGISTERED = "NOT EXISTS (SELECT FROM model_versions v WHERE v.run_id = $1)"
"""Whether no version rests on the run `$1`: half the cost of `UNPROMOTED`, and true of most runs."""

UNPROMOTED = f"NOT EXISTS (SELECT FROM model_versions v WHERE v.run_id = $1 AND {EVER_PROMOTED})"
"""Whether no version that rests on the run `$1` was ever promoted."""

RUNNING = f"lifecycle_stage = 'active' AND coalesce(status, 'SCHEDULED') IN {OPEN_STATUSES}"
"""Of a row in `runs`: whether the run has neither ended nor been deleted."""

MODEL_OF_SOURCE = "substring(v.source from 'm-[0-9a-f]{32}')"
"""Of a version `v`: the id of the logged model that it was registered from, or NULL. It has an index."""


def free_models(models: str) -> str:
    """Whether no version rests on any of the `models` (an array), but for those of the open run `$1`."""
    return f"""
    NOT EXISTS (SELECT FROM model_versions v
                WHERE {MODEL_OF_SOURCE} = ANY({models}) AND v.run_id IS DISTINCT FROM $1)
    AND NOT EXISTS (SELECT FROM logged_models m JOIN model_versions v ON v.run_id = m.source_run_id
                    WHERE m.model_id = ANY({models}) AND m.source_run_id NOT IN ('', $1))
    """  # noqa: S608 - only constants
