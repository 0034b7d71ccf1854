"""A database that came from elsewhere names its artifacts here: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.relocation import relocate
from mlflow_aws_server.settings import ImportSettings

from tests.server.conftest import Deployment

OLD = "s3://lost-bucket/mlflow"
_ROWS = f"""
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace) VALUES
    (7101, 'relocated', '{OLD}/7101', 'active', 'default');
INSERT INTO runs (run_uuid, artifact_uri, experiment_id, status, source_type, lifecycle_stage) VALUES
    ('relocated-run', '{OLD}/7101/relocated-run/artifacts', 7101, 'FINISHED', 'LOCAL', 'active')
"""
_UNDO = "DELETE FROM runs WHERE experiment_id = 7101; DELETE FROM experiments WHERE experiment_id = 7101"
_PLACES = (
    "SELECT artifact_location FROM experiments WHERE experiment_id = 7101"
    " UNION ALL SELECT artifact_uri FROM runs WHERE experiment_id = 7101"
)


@pytest.fixture
def settings(migrated: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImportSettings]:
    for name, value in migrated.environ.items():
        monkeypatch.setenv(name, value)
    with migrated.rds.postgres.cursor(migrated.database) as cursor:
        cursor.execute(_ROWS)
    yield ImportSettings.from_environ(migrated.environ)
    with migrated.rds.postgres.cursor(migrated.database) as cursor:
        cursor.execute(_UNDO)


def places(migrated: Deployment) -> list[Any]:
    return [row[0] for row in migrated.rds.administer(_PLACES, database=migrated.database)]


def test_every_uri_moves_as_the_schema_s_owner_and_a_second_time_none(
    migrated: Deployment, settings: ImportSettings
) -> None:
    new = f"{settings.artifact_root.rstrip('/')}/relocated"
    rows = relocate(settings, old=OLD, new=new)["rows"]
    assert isinstance(rows, dict)
    assert {column: count for column, count in rows.items() if count} == {
        "experiments.artifact_location": 1,
        "runs.artifact_uri": 1,
    }
    assert places(migrated) == [f"{new}/7101", f"{new}/7101/relocated-run/artifacts"]
    again = relocate(settings, old=OLD, new=new)["rows"]
    assert isinstance(again, dict)
    assert sum(again.values()) == 0


def test_a_failure_changes_nothing(migrated: Deployment, settings: ImportSettings) -> None:
    before = places(migrated)
    root = settings.artifact_root.rstrip("/")
    for old, new, why in (
        (OLD, "s3://another/place", "is not below this deployment's artifact root"),
        (root, f"{root}/relocated", "holds this deployment's own artifacts"),
        (OLD, f"{root}/{'x' * 600}", "no URI was changed: .* Choose a shorter root"),
    ):
        with pytest.raises(OperationError, match=why):
            relocate(settings, old=old, new=new)
    assert places(migrated) == before
