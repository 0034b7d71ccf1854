"""Our own indexes live beside MLflow's schema, not in it."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_aws_server.fastpath import search
from mlflow_aws_server.fastpath.indexes import INDEX_STATEMENTS
from sqlalchemy import text

from tests.conftest import RdsLike

OURS = ("mlflow_aws_newest_runs", "mlflow_aws_newest_started_runs")
NAMES = "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'mlflow_aws_%' ORDER BY 1"


def test_indexes_can_be_created_again(rds: RdsLike, new_mlflow_database: Callable[[], str]) -> None:
    name = new_mlflow_database()
    for _ in range(2):
        for statement in INDEX_STATEMENTS:
            rds.administer(statement, database=name)
    assert rds.administer(NAMES, database=name) == [(index,) for index in OURS]


def test_mlflows_migrations_run_over_our_indexes(rds: RdsLike) -> None:
    from mlflow.store.db.utils import _upgrade_db, _verify_schema, create_sqlalchemy_engine
    from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

    name = rds.new_database()
    socket = rds.postgres.socket_directory
    engine = create_sqlalchemy_engine(f"postgresql+psycopg2://postgres@/{name}?host={socket}&port={rds.port}")
    # The oldest schema there is, so that every migration runs with the indexes in place.
    InitialBase.metadata.create_all(engine)
    with engine.begin() as connection:
        for statement in INDEX_STATEMENTS:
            connection.execute(text(statement))
    _upgrade_db(engine)
    _verify_schema(engine)
    engine.dispose()
    assert rds.administer(NAMES, database=name) == [(index,) for index in OURS]


def test_the_newest_runs_of_an_experiment_are_read_in_order(
    rds: RdsLike, new_mlflow_database: Callable[[], str]
) -> None:
    name = new_mlflow_database()
    rds.administer(
        "INSERT INTO runs (run_uuid, user_id, status, start_time, lifecycle_stage, experiment_id) "
        "SELECT md5(i::text), 'u', 'RUNNING', i % 97, 'active', 0 FROM generate_series(1, 5000) i",
        database=name,
    )
    for statement in INDEX_STATEMENTS:
        rds.administer(statement, database=name)
    rds.administer("ANALYZE runs", database=name)
    question = "SELECT run_uuid FROM runs WHERE experiment_id = 0 AND lifecycle_stage = 'active'"
    for order, index in zip(("start_time DESC", "start_time DESC NULLS LAST"), OURS, strict=True):
        plan = rds.administer(f"EXPLAIN {question} ORDER BY {order}, run_uuid LIMIT 100", database=name)
        assert f"Index Scan using {index} " in str(plan)
        assert "Sort" not in str(plan)


def test_searches_for_the_newest_runs_ask_in_an_order_that_an_index_has() -> None:
    for clause in ("start_time DESC", "attributes.start_time DESC", "attribute.start_time desc"):
        sql = search._compiled("", (clause,), "ACTIVE_ONLY", True).sql
        assert "ORDER BY runs.start_time DESC NULLS LAST, runs.run_uuid" in sql
    sql = search._compiled("", (), "ACTIVE_ONLY", True).sql
    assert "ORDER BY runs.start_time DESC, runs.run_uuid" in sql
