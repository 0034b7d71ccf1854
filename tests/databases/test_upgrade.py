"""Databases of older versions are brought to today's schema, and nothing in them is lost.

In rows, table by table, and in what today's client sees of what the old client wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow.sklearn
import pytest
from mlflow import MlflowClient

from tests.conftest import RdsLike
from tests.databases.loading import load
from tests.databases.seen import seen
from tests.databases.sources import BY_NAME, SOURCES, Source
from tests.object_store import ObjectStore
from tests.server.conftest import Deployment, deployment
from tests.server.test_migration import _create_roles

# A revision may change how many rows a table has: which, why, and by how many, asked before it runs.
CHANGES = {
    # 75868b020152 moves the names of traces into a column of trace_info.
    "trace_tags": "SELECT -count(*) FROM trace_tags WHERE key = 'mlflow.traceName'",
}
# 1b5f0d9ad7c1 adds the workspace that all of it is in.
ADDED = {"workspaces": 1}
POSTGRESQL = [source for source in SOURCES if source.backend == "postgresql"]


def counted(rds: RdsLike, database: str) -> dict[str, int]:
    """The rows of each table."""
    tables = rds.administer(
        "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'public'", database=database
    )
    return {
        str(name): int(str(rds.administer(f'SELECT count(*) FROM "{name}"', database=database)[0][0]))
        for (name,) in tables
    }


def announced(rds: RdsLike, database: str, table: str) -> int:
    """By how many rows the upgrade will change a table."""
    if table not in CHANGES:
        return 0
    return int(str(rds.administer(CHANGES[table], database=database)[0][0]))


def socket_uri(rds: RdsLike, database: str) -> str:
    """The database for MLflow, as the superuser."""
    return f"postgresql+psycopg2://postgres@/{database}?host={rds.postgres.socket_directory}&port={rds.postgres.port}"


@contextmanager
def loaded(rds: RdsLike, source: Source) -> Iterator[Deployment]:
    """A deployment whose database was restored from the source's dump."""
    with deployment(rds) as made:
        _create_roles(made)
        with rds.postgres.cursor(made.database) as cursor:
            cursor.execute(f"SET ROLE {made.migrator}")
            load(cursor, source.sql())
        yield made


@pytest.mark.parametrize("source", POSTGRESQL, ids=lambda source: source.version)
def test_dump_loads_as_it_was_made(source: Source, rds: RdsLike) -> None:
    database = rds.new_database()
    with rds.postgres.cursor(database) as cursor:
        load(cursor, source.sql())
    assert counted(rds, database) == source.expectation()["rows"]


@pytest.mark.slow
@pytest.mark.parametrize("source", POSTGRESQL, ids=lambda source: source.version)
def test_upgrade_accounts_for_every_row_and_clients_see_the_same(source: Source, rds: RdsLike) -> None:
    there = source.expectation()
    with loaded(rds, source) as made:
        expected = {
            table: rows + announced(rds, made.database, table) for table, rows in there["rows"].items()
        }
        done = made.migrate()
        assert done.returncode == 0, done.stderr
        rows = {table: number for table, number in counted(rds, made.database).items() if number}
        here = json.loads(json.dumps(seen(MlflowClient(socket_uri(rds, made.database)))))
    assert rows == ADDED | {table: number for table, number in expected.items() if number}
    assert here == there["seen"]


@pytest.mark.slow
def test_model_that_2_11_3_logged_loads_from_its_new_place(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = BY_NAME["2.11.3-postgresql"]
    source.unpack_artifacts(tmp_path)
    (model, *_) = sorted(tmp_path.glob("*/*/artifacts/model"))
    files = {
        path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()
    }
    uri = object_store.write_model("moved/model", files)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", object_store.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLEEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    assert list(mlflow.sklearn.load_model(uri).predict([[0.0], [3.0]])) == [0, 1]
