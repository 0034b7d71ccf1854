"""What is in the database before the load starts, the same for every system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5

# One time for everything, so that databases filled at different times hold the same rows.
EPOCH_MS = 1_790_000_000_000

WRITTEN_EXPERIMENT = 1
SMALL_EXPERIMENT = 2
LARGE_EXPERIMENT = 3

HISTORY_KEY = "loss"
HISTORY_POINTS = 100
METRICS_PER_RUN = 5
PARAMS_PER_RUN = 5


@dataclass(frozen=True)
class Corpus:
    """Names of the things the scenarios read and write."""

    experiment: str
    runs: Sequence[str]
    readable: Sequence[str]
    with_history: Sequence[str]
    small_experiment: str
    large_experiment: str | None


def run_id(experiment: int, number: int) -> str:
    """The id of a seeded run, known without a query."""
    return md5(f"{experiment}/{number}".encode(), usedforsecurity=False).hexdigest()


def seeded(*, written: int, small: int, with_history: int) -> Corpus:
    """The corpus that `seed_statements` of the same sizes puts into a database."""
    return Corpus(
        experiment=str(WRITTEN_EXPERIMENT),
        runs=[run_id(WRITTEN_EXPERIMENT, number) for number in range(1, written + 1)],
        readable=[run_id(SMALL_EXPERIMENT, number) for number in range(1, min(small, 2_000) + 1)],
        with_history=[run_id(SMALL_EXPERIMENT, number) for number in range(1, with_history + 1)],
        small_experiment=str(SMALL_EXPERIMENT),
        large_experiment=str(LARGE_EXPERIMENT),
    )


def seed_statements(*, written: int, small: int, large: int, with_history: int) -> list[str]:
    """SQL that fills a fresh MLflow database.

    `written` runs that scenarios write to, experiments with `small` and with `large` finished runs (each
    with 5 metrics, 5 parameters and 4 tags), and a history of 100 points in `with_history` of the small
    experiment's.
    """
    statements = [
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time,"
        " last_update_time, workspace) SELECT i, 'bench ' || i, 's3://bench-artifacts/' || i, 'active',"
        f" {EPOCH_MS}, {EPOCH_MS}, 'default' FROM generate_series(1, 3) i",
        "SELECT setval(pg_get_serial_sequence('experiments', 'experiment_id'), 1000)",
    ]
    for experiment, count in (
        (WRITTEN_EXPERIMENT, written),
        (SMALL_EXPERIMENT, small),
        (LARGE_EXPERIMENT, large),
    ):
        statements += run_statements(experiment, first=1, last=count)
        if experiment != WRITTEN_EXPERIMENT:
            statements += attribute_statements(experiment, first=1, last=count)
    statements.append(
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)"
        f" SELECT '{HISTORY_KEY}', 1.0 / step, {EPOCH_MS} + step * 1000, {_id(SMALL_EXPERIMENT)}, step, false"
        f" FROM generate_series(1, {with_history}) i, generate_series(1, {HISTORY_POINTS}) step"
    )
    return statements


def run_statements(experiment: int, *, first: int, last: int) -> list[str]:
    """SQL for the runs numbered `first`..`last` of an experiment, without attributes."""
    status = "RUNNING" if experiment == WRITTEN_EXPERIMENT else "FINISHED"
    end = "NULL" if experiment == WRITTEN_EXPERIMENT else f"{EPOCH_MS} + i * 1000 + 60000"
    return [
        "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,"
        " start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id)"
        f" SELECT {_id(experiment)}, 'run-' || i, 'UNKNOWN', '', '', 'bench', '{status}',"
        # Start times not in the order of insertion, as in a database with a history.
        f" {EPOCH_MS} + (i * 7919 % {last + 1}) * 1000, {end}, '', 'active',"
        f" 's3://bench-artifacts/{experiment}/' || {_id(experiment)} || '/artifacts', {experiment}"
        f" FROM generate_series({first}::bigint, {last}) i"
    ]


def attribute_statements(experiment: int, *, first: int, last: int) -> list[str]:
    """SQL for the metrics, parameters and tags of the runs numbered `first`..`last`."""
    runs = f"FROM generate_series({first}::bigint, {last}) i"
    value = "(i * 31 + k * 17) % 1000 / 1000.0"
    metrics = f"{runs}, generate_series(1, {METRICS_PER_RUN}) k"
    return [
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)"
        f" SELECT 'metric_' || k, {value}, {EPOCH_MS} + k, {_id(experiment)}, 10, false {metrics}",
        "INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan)"
        f" SELECT 'metric_' || k, {value}, {EPOCH_MS} + k, {_id(experiment)}, 10, false {metrics}",
        "INSERT INTO params (key, value, run_uuid)"
        f" SELECT 'param_' || k, ((i * k) % 97)::text, {_id(experiment)}"
        f" {runs}, generate_series(1, {PARAMS_PER_RUN}) k",
        "INSERT INTO tags (key, value, run_uuid)"
        f" SELECT tag.key, tag.value || i % 50, {_id(experiment)} {runs}, (VALUES"
        " ('mlflow.runName', 'run-'), ('mlflow.user', 'user-'), ('mlflow.source.name', 'train.py-'),"
        " ('mlflow.source.type', 'LOCAL-')) tag (key, value)",
    ]


def _id(experiment: int) -> str:
    return f"md5('{experiment}/' || i)"
