"""A source with everything that collides becomes rows here, all of them counted, or nothing does."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.imports import tables

from tests.conftest import RdsLike
from tests.server.conftest import Identity, Migration, deployment
from tests.server.imports.harness import NAME, OLD_ROOT, Target

# As a folder numbers experiments.
_LARGE = 738_123_456_789_012_345
_TAKEN = """
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace)
VALUES (1, 'churn', 's3://example-artifacts/runs/1', 'active', 'default');
INSERT INTO registered_models (workspace, name) VALUES ('default', 'churn')
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow with a run, a registered model of it, and claims to be what this server writes."""
    path = tmp_path_factory.mktemp("source") / "mlflow.db"
    client = MlflowClient(f"sqlite:///{path}")
    experiment = client.create_experiment("churn", artifact_location=f"{OLD_ROOT}/1")
    run = client.create_run(experiment, tags={"mlflow_aws.principal": "arn:forged", "note": "a\tb\\c\nd"})
    client.log_batch(
        run.info.run_id,
        metrics=[Metric("loss", 1 / (step + 1), 1000 + step, step) for step in range(50)],
        params=[Param("lr", "0.1")],
    )
    client.create_run("0")
    client.create_registered_model("churn")
    client.create_model_version("churn", f"{OLD_ROOT}/1/{run.info.run_id}/artifacts/model", run.info.run_id)
    client.create_model_version("churn", "models:/churn/1")
    client.set_registered_model_alias("churn", "champion", "1")
    client.set_model_version_tag("churn", "1", "mlflow_aws.history.20200101", "promoted by nobody")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace)"
            " VALUES (?, 'of a folder', ?, 'active', 'default')",
            (_LARGE, f"{OLD_ROOT}/{_LARGE}"),
        )
        # As SQLite keeps them when a run is deleted by hand.
        connection.execute("INSERT INTO tags (key, value, run_uuid) VALUES ('of', 'nothing', 'gone')")
        connection.execute(
            f"UPDATE experiments SET artifact_location = '{OLD_ROOT}/0' WHERE experiment_id = 0"
        )
    return path


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path))


@pytest.fixture
def target(rds: RdsLike, identity: Identity, migration: Migration, tmp_path: Path) -> Iterator[Target]:
    with deployment(rds, identity, copy_of=migration) as made:
        yield Target(made, tmp_path)


def test_what_collides_is_mapped_and_told_and_a_second_run_changes_nothing(
    source: Path, target: Target
) -> None:
    target.ask(_TAKEN)
    target.read(source)
    seen = target.run(dry_run=True)
    assert target.ask("SELECT count(*) FROM runs") == [(0,)]
    first = target.run()
    assert {**first, "dry_run": True} == seen
    assert first["rows"]["metrics"] == {"there": 50, "here": 50, "differing": 0}
    assert [
        rows for rows in first["rows"].values() if rows["differing"] or rows["here"] != rows["there"]
    ] == []
    assert first["without_parents"] == {"tags": 1}
    assert first["left_out"] == {"workspaces": 1}
    assert first["mapped"] == [
        {"experiment": 1, "becomes": 2, "name": f"churn-{NAME}"},
        {"experiment": _LARGE, "becomes": 3},
        {"registered_model": "churn", "becomes": f"churn-{NAME}"},
    ]
    assert target.ask("SELECT version, source, storage_location FROM model_versions ORDER BY 1") == [
        (
            1,
            place := target.ask("SELECT artifact_uri || '/model' FROM runs WHERE experiment_id = 2")[0][0],
            place,
        ),
        (2, f"models:/churn-{NAME}/1", place),
    ]
    assert place.startswith(f"{target.root}/1/")
    everything = target.everything()
    second = target.run()
    assert second["copied"] == {}
    assert second["rows"] == first["rows"]
    assert target.everything() == everything
    # A new experiment gets the next id, and the server may not write what maps the next import.
    assert target.ask(
        "INSERT INTO experiments (name, workspace) VALUES ('new', 'default') RETURNING experiment_id"
    ) == [(4,)]
    server = target.made.server_user
    may = f"has_table_privilege('{server}', 'mlflow_aws.imports', 'SELECT, INSERT, UPDATE, DELETE')"
    assert target.ask(f"SELECT {may}") == [(False,)]
    # A dry run is rolled back with its event.
    told = target.ask("SELECT detail::json ->> 'rows' > '0' FROM mlflow_aws.events ORDER BY number")
    assert told == [(True,), (False,)]


def test_what_a_source_says_of_its_authors_is_a_claim(source: Path, target: Target) -> None:
    target.read(source)
    assert target.run()["claims"] == 2
    for table in tables.TAGS:
        column = tables.TAGS[table]
        assert target.ask(f"SELECT {column} FROM {table} WHERE starts_with({column}, 'mlflow_aws.')") == []
    assert target.ask("SELECT value FROM tags WHERE key = 'imported.mlflow_aws.principal'") == [
        ("arn:forged",)
    ]


def test_nothing_is_added_to_a_run_that_is_here_already(source: Path, target: Target) -> None:
    with sqlite3.connect(source) as connection:
        (run,) = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = 1").fetchone()
    target.ask(
        "INSERT INTO runs (run_uuid, experiment_id, status, source_type, lifecycle_stage)"
        f" VALUES ('{run}', 0, 'RUNNING', 'LOCAL', 'active')"
    )
    target.read(source)
    assert target.run()["rows"]["metrics"] == {"there": 50, "here": 0, "differing": 50}
    assert target.ask(f"SELECT count(*) FROM tags WHERE run_uuid = '{run}'") == [(0,)]


def test_a_failure_leaves_nothing(source: Path, target: Target) -> None:
    before = target.everything()
    archive = target.read(source)
    with sqlite3.connect(source) as connection:
        connection.execute("UPDATE params SET key = ?", ("k" * 300,))
    target.read(source)
    with pytest.raises(OperationError, match=r"params\.copy\.gz does not fit MLflow's table params .*kkk"):
        target.run()
    archive.files[0].write_bytes(b"")
    with pytest.raises(OperationError, match="is not what its manifest says"):
        target.run()
    assert target.everything() == before


def test_a_source_newer_than_this_mlflow_is_refused(source: Path, target: Target) -> None:
    archive = target.read(source)
    archive.manifest["revision"] = "ffffffffffff"
    archive.finish(suffix="", roots={})
    with pytest.raises(OperationError, match="the source is newer"):
        target.run()


def test_every_table_of_mlflow_s_is_copied_or_left_out_for_a_reason(
    migration: Migration, rds: RdsLike
) -> None:
    found = rds.administer(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=migration.database
    )
    assert {name for (name,) in found} == {table.name for table in tables.COPIED} | set(tables.LEFT_OUT)
