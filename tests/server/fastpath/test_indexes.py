"""Our own indexes live beside MLflow's schema, not in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg2
import pytest
from mlflow_aws_server.fastpath import indexes, search
from mlflow_aws_server.lineage import MODEL_OF_SOURCE
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from tests.conftest import RdsLike

OF_RUNS = ("mlflow_aws_newest_runs", "mlflow_aws_newest_started_runs")
OURS = tuple(sorted(indexes.INDEXES))
VALID = """
    SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid
     WHERE relname LIKE 'mlflow_aws_%' ORDER BY 1
"""
ALL_VALID = [(name, True) for name in OURS]
ADD_RUN = (
    "INSERT INTO runs (run_uuid, user_id, status, start_time, lifecycle_stage, experiment_id) "
    "VALUES (replace(gen_random_uuid()::text, '-', ''), 'u', 'RUNNING', 1, 'active', 0)"
)


@contextmanager
def connected(rds: RdsLike, database: str) -> Iterator[Connection]:
    connection = psycopg2.connect(
        dbname=database, user="postgres", host=str(rds.postgres.socket_directory), port=rds.port
    )
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


def run(connection: Connection, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def database(rds: RdsLike, new_mlflow_database: Callable[[], str]) -> str:
    """MLflow's tables without our indexes."""
    name = new_mlflow_database()
    rds.administer(f"DROP INDEX {', '.join(OURS)}", database=name)
    return name


@pytest.fixture
def live(rds: RdsLike, database: str) -> Iterator[tuple[str, Connection]]:
    """A database with a transaction that has written a run and is still open."""
    with connected(rds, database) as open_writer:
        run(open_writer, "BEGIN")
        run(open_writer, ADD_RUN)
        yield database, open_writer


def test_indexes_can_be_built_again(rds: RdsLike, database: str) -> None:
    with connected(rds, database) as owner:
        for _ in range(2):
            assert indexes.build(owner) == []
    assert rds.administer(VALID, database=database) == ALL_VALID


def test_building_blocks_no_writer(rds: RdsLike, live: tuple[str, Connection]) -> None:
    name, open_writer = live
    with connected(rds, name) as owner, connected(rds, name) as writer:
        building = threading.Thread(target=indexes.build, args=(owner,))
        building.start()
        try:
            # A building that took its turn among the writers would let none pass before the open one ends.
            run(writer, "SET lock_timeout = '5s'")
            written, deadline = 0, time.monotonic() + 1
            while time.monotonic() < deadline:
                run(writer, ADD_RUN)
                written += 1
            assert building.is_alive()
            assert written > 20
        finally:
            run(open_writer, "COMMIT")
            building.join()
    assert rds.administer(VALID, database=name) == ALL_VALID


def test_an_index_that_cannot_be_finished_is_left_to_the_next_run(
    rds: RdsLike, live: tuple[str, Connection]
) -> None:
    name, open_writer = live
    with connected(rds, name) as owner:
        assert indexes.build(owner, patience="200ms") == list(OF_RUNS)
        assert (OF_RUNS[0], False) in rds.administer(VALID, database=name)
        run(open_writer, "COMMIT")
        assert indexes.build(owner) == []
    assert rds.administer(VALID, database=name) == ALL_VALID


def test_mlflows_migrations_run_over_our_indexes(rds: RdsLike) -> None:
    from alembic import command
    from mlflow.store.db.utils import (
        _get_alembic_config,
        _upgrade_db,
        _verify_schema,
        create_sqlalchemy_engine,
    )
    from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

    name = rds.new_database()
    socket = rds.postgres.socket_directory
    engine = create_sqlalchemy_engine(f"postgresql+psycopg2://postgres@/{name}?host={socket}&port={rds.port}")
    # The oldest schema with all the tables, so that every later migration runs with the indexes in place.
    InitialBase.metadata.create_all(engine)
    config = _get_alembic_config(str(engine.url))
    with engine.begin() as upgraded:
        config.attributes["connection"] = upgraded
        command.upgrade(config, "2b4d017a5e9b")
    with connected(rds, name) as owner:
        indexes.build(owner)
    _upgrade_db(engine)
    _verify_schema(engine)
    engine.dispose()
    assert rds.administer(VALID, database=name) == ALL_VALID


def test_the_newest_runs_of_an_experiment_are_read_in_order(
    rds: RdsLike, new_mlflow_database: Callable[[], str]
) -> None:
    name = new_mlflow_database()
    rds.administer(
        "INSERT INTO runs (run_uuid, user_id, status, start_time, lifecycle_stage, experiment_id) "
        "SELECT md5(i::text), 'u', 'RUNNING', i % 97, 'active', 0 FROM generate_series(1, 5000) i",
        database=name,
    )
    with connected(rds, name) as owner:
        indexes.build(owner)
    rds.administer("ANALYZE runs", database=name)
    question = "SELECT run_uuid FROM runs WHERE experiment_id = 0 AND lifecycle_stage = 'active'"
    for order, index in zip(("start_time DESC", "start_time DESC NULLS LAST"), OF_RUNS, strict=True):
        plan = rds.administer(f"EXPLAIN {question} ORDER BY {order}, run_uuid LIMIT 100", database=name)
        assert f"Index Scan using {index} " in str(plan)
        assert "Sort" not in str(plan)


def test_what_rests_on_a_run_or_a_logged_model_is_found_by_an_index(
    rds: RdsLike, new_mlflow_database: Callable[[], str]
) -> None:
    name = new_mlflow_database()
    rds.administer(
        "INSERT INTO registered_models (name) VALUES ('m'); "
        "INSERT INTO model_versions (name, version, run_id, source) "
        "SELECT 'm', i, md5(i::text), 's3://bucket/root/0/models/m-' || md5(i::text) || '/artifacts' "
        "FROM generate_series(1, 5000) i",
        database=name,
    )
    rds.administer("ANALYZE model_versions", database=name)
    run = f"v.run_id = '{'0' * 32}'"
    for condition, index in (
        (run, "mlflow_aws_versions_of_runs"),
        (f"{MODEL_OF_SOURCE} = ANY(ARRAY['m-{'0' * 32}'])", "mlflow_aws_versions_of_models"),
    ):
        plan = rds.administer(f"EXPLAIN SELECT FROM model_versions v WHERE {condition}", database=name)
        assert index in str(plan)
        assert "Seq Scan" not in str(plan)


def test_searches_for_the_newest_runs_ask_in_an_order_that_an_index_has() -> None:
    for clause in ("start_time DESC", "attributes.start_time DESC", "attribute.start_time desc"):
        sql = search._compiled("", (clause,), "ACTIVE_ONLY", True).sql
        assert "ORDER BY runs.start_time DESC NULLS LAST, runs.run_uuid" in sql
    sql = search._compiled("", (), "ACTIVE_ONLY", True).sql
    assert "ORDER BY runs.start_time DESC, runs.run_uuid" in sql
