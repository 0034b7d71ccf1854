"""Moving MLflow's places to another root, in MLflow's own schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from mlflow_aws_server import artifact_uris
from mlflow_aws_server.artifact_uris import LongUriError

from tests.server.conftest import Deployment

_ROWS = """
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace) VALUES
    (7001, 'moved', 's3://old/root/7001', 'active', 'default'),
    (7002, 'a neighbour', 's3://old/rooted/7002', 'active', 'default');
INSERT INTO runs (run_uuid, artifact_uri, experiment_id, status, source_type, lifecycle_stage) VALUES
    ('uris-run', 's3://old/root/7001/uris-run/artifacts', 7001, 'FINISHED', 'LOCAL', 'active');
INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms,
    last_updated_timestamp_ms, status) VALUES
    ('m-uris', 7001, 'model', 's3://old/root/7001/models/m-uris/artifacts', 1, 1, 2);
INSERT INTO registered_models (workspace, name) VALUES ('default', 'uris');
INSERT INTO model_versions (workspace, name, version, current_stage, source, storage_location) VALUES
    ('default', 'uris', 1, 'None', 'runs:/uris-run/model', 's3://old/root/7001/uris-run/artifacts/model'),
    ('default', 'uris', 2, 'None', 's3://old/root', 's3://old/root');
INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status) VALUES ('tr-uris', 7001, 1, 'OK');
INSERT INTO trace_tags (request_id, key, value) VALUES
    ('tr-uris', 'mlflow.artifactLocation', 's3://old/root/7001/traces/tr-uris/artifacts'),
    ('tr-uris', 'mlflow.trace.archiveLocation', 's3://old/root/archive/tr-uris'),
    ('tr-uris', 'mine', 's3://old/root/is-a-text');
INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source) VALUES
    ('d-uris', 7001, 'data', '1', 's3', '{"uri": "s3://old/root/data.csv", "of": "s3://old/roots"}')
"""


@pytest.fixture
def cursor(migrated: Deployment) -> Iterator[Any]:
    with migrated.rds.postgres.cursor(migrated.database) as cursor:
        cursor.execute("BEGIN")
        cursor.execute(_ROWS)
        yield cursor
        cursor.execute("ROLLBACK")


def _values(cursor: Any, query: str) -> list[Any]:
    cursor.execute(query)
    return [row[0] for row in cursor.fetchall()]


def test_every_place_below_the_root_moves_and_nothing_else(cursor: Any) -> None:
    counts = artifact_uris.rewrite(cursor, "public", "s3://old/root/", "s3://new/place")
    assert {column: rows for column, rows in counts.items() if rows} == {
        "experiments.artifact_location": 1,
        "runs.artifact_uri": 1,
        "logged_models.artifact_location": 1,
        "model_versions.source": 1,
        "model_versions.storage_location": 2,
        "trace_tags.value": 2,
        "datasets.dataset_source": 1,
    }
    assert _values(
        cursor, "SELECT artifact_location FROM experiments WHERE experiment_id > 7000 ORDER BY 1"
    ) == [
        "s3://new/place/7001",
        "s3://old/rooted/7002",
    ]
    assert _values(cursor, "SELECT source FROM model_versions WHERE name = 'uris' ORDER BY version") == [
        "runs:/uris-run/model",
        "s3://new/place",
    ]
    assert _values(cursor, "SELECT value FROM trace_tags WHERE request_id = 'tr-uris' ORDER BY key") == [
        "s3://old/root/is-a-text",
        "s3://new/place/7001/traces/tr-uris/artifacts",
        "s3://new/place/archive/tr-uris",
    ]
    (source,) = _values(cursor, "SELECT dataset_source FROM datasets WHERE dataset_uuid = 'd-uris'")
    assert json.loads(source) == {"uri": "s3://new/place/data.csv", "of": "s3://old/roots"}


def test_root_too_long_for_mlflow_s_column_is_refused_by_name(cursor: Any) -> None:
    with pytest.raises(LongUriError, match=r"experiments\.artifact_location: .* Choose a shorter root\."):
        artifact_uris.rewrite(cursor, "public", "s3://old/root", "s3://new/" + "p" * 250)


def test_no_place_that_mlflow_stores_is_missing(migrated: Deployment) -> None:
    """A column of a later MLflow that may hold a URI has to be judged here."""
    seen = migrated.rds.administer(
        """SELECT table_name || '.' || column_name FROM information_schema.columns
            WHERE table_schema = 'public' AND column_name ~ 'uri$|location|artifact|dataset_source$'""",
        database=migrated.database,
    )
    moved = {f"{table}.{column}" for table, column, _ in artifact_uris._COLUMNS}
    moved |= {f"{table}.{column}" for table, column in artifact_uris._DOCUMENTS}
    assert {str(row[0]) for row in seen} <= moved
