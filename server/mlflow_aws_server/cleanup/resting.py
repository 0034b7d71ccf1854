"""What keeps runs, logged models and experiments, whatever was deleted: versions of the registry, mostly."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from mlflow_aws_server.lineage import MODEL_OF_SOURCE

_RUN_IN = "substring({} from '(?:^runs:/|/)([0-9a-f]{{32}})(?:/|$)')"
_MODEL_IN = "substring({} from 'm-[0-9a-f]{{32}}')"

# More than what freezes them: a version also rests on what its source only names.
_VERSIONS = f"""
    version AS (
        SELECT v.name, v.version, v.run_id, {MODEL_OF_SOURCE} AS model_id,
               {_RUN_IN.format("v.source")} AS source_run,
               {_RUN_IN.format("v.storage_location")} AS stored_run,
               {_MODEL_IN.format("v.storage_location")} AS stored_model
        FROM model_versions v WHERE v.current_stage <> 'Deleted_Internal')
"""  # noqa: S608 - only constants
_RUNS = f"""
    WITH {_VERSIONS}, resting AS (
        SELECT name, version, unnest(ARRAY[run_id, source_run, stored_run]) AS id FROM version
        UNION ALL SELECT version.name, version, m.source_run_id
                  FROM version JOIN logged_models m ON m.model_id IN (version.model_id, stored_model))
    SELECT DISTINCT ON (id) id, name, version FROM resting WHERE id = ANY(%s) ORDER BY id, name, version
"""  # noqa: S608 - only constants
_MODELS = f"""
    WITH {_VERSIONS}, resting AS (
        SELECT name, version, unnest(ARRAY[model_id, stored_model]) AS id FROM version
        UNION ALL SELECT version.name, version, m.model_id
                  FROM version JOIN logged_models m ON m.source_run_id = version.run_id)
    SELECT DISTINCT ON (id) id, name, version FROM resting WHERE id = ANY(%s) ORDER BY id, name, version
"""  # noqa: S608 - only constants
# What would be cut off from its scorer, or lose its files.
_ON_EXPERIMENT = """
    SELECT count(*), 'guardrails' FROM guardrails g JOIN scorers s USING (scorer_id)
    WHERE s.experiment_id = %(experiment)s
    UNION ALL
    SELECT count(*), 'versions' FROM model_versions WHERE current_stage <> 'Deleted_Internal'
       AND (starts_with(source, %(inside)s) OR starts_with(storage_location, %(inside)s))
    UNION ALL
    SELECT count(*), 'experiments' FROM experiments
    WHERE experiment_id <> %(experiment)s AND starts_with(artifact_location || '/', %(inside)s)"""
_IN_EXPERIMENT = (
    "SELECT run_uuid FROM runs WHERE experiment_id = %s",
    "SELECT model_id FROM logged_models WHERE experiment_id = %s",
)


def runs(cursor: Any, ids: Sequence[str]) -> dict[str, str]:
    """Of these runs, those that a version rests on, each with why it stays."""
    return _reasons(cursor, _RUNS, ids)


def models(cursor: Any, ids: Sequence[str]) -> dict[str, str]:
    """Of these logged models, those that a version rests on, each with why it stays."""
    return _reasons(cursor, _MODELS, ids)


def on_experiment(cursor: Any, experiment: int, place: str, *, gone: Collection[str]) -> str:
    """What keeps an experiment at this place, but for runs in `gone`; empty if nothing does."""
    cursor.execute(_ON_EXPERIMENT, {"experiment": experiment, "inside": f"{place.rstrip('/')}/"})
    holds = cursor.fetchall()
    ids = []
    for query in _IN_EXPERIMENT:
        cursor.execute(query, (experiment,))
        ids.append([each for (each,) in cursor])
    holds.append((sum(run not in gone for run in ids[0]), "runs"))
    holds.append((len(models(cursor, ids[1])), "registered models"))
    return ", ".join(f"{number} {what} stay" for number, what in holds if number)


def _reasons(cursor: Any, statement: str, ids: Sequence[str]) -> dict[str, str]:
    cursor.execute(statement, (list(ids),))
    return {each: f"version {version} of the model {name!r} rests on it" for each, name, version in cursor}
