"""What the most expensive searches within the limits take of PostgreSQL's memory."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg2
import pytest
from mlflow_aws_server.budgets import questions
from mlflow_aws_server.fastpath import search

from tests.conftest import RdsLike
from tests.server.conftest import Migration

pytestmark = pytest.mark.slow

_MOST = 64 * 1024
_ORDER = tuple(f"metrics.q{i} DESC" for i in range(10))


def private(backend: int) -> int:
    """The memory of a process that no other one shares, in KiB."""
    lines = Path(f"/proc/{backend}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def peak(rds: RdsLike, database: str, sql: str, arguments: tuple[object, ...]) -> int:
    """The most that a new backend takes more while it answers, in KiB."""
    connection = psycopg2.connect(
        host=str(rds.postgres.socket_directory), port=rds.port, user="postgres", dbname=database
    )
    backend = connection.info.backend_pid
    before = seen = private(backend)
    done = threading.Event()

    def watch() -> None:
        nonlocal seen
        while not done.wait(0.002):
            seen = max(seen, private(backend))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with connection.cursor() as cursor:
            parameters = ", ".join("%s" for _ in arguments)
            cursor.execute(f"PREPARE q AS {sql}")
            cursor.execute(f"EXPLAIN EXECUTE q ({parameters})", arguments)
    finally:
        done.set()
        watcher.join()
        connection.close()
    return seen - before


@pytest.mark.parametrize("condition", ["tags.k{} = 'b'", "metrics.k{} > 1", "datasets.name = 'x{}'"])
def test_the_most_expensive_search_takes_less_than_64_mb(
    rds: RdsLike, migration: Migration, condition: str
) -> None:
    text = " and ".join(condition.format(i) for i in range(20))
    questions.judge([("filter", text), ("order_by", list(_ORDER))])
    statement = search._compiled(text, _ORDER, "ALL", False)
    own = {search._EXPERIMENTS: [0, 1], search._OFFSET: 0, search._LIMIT: 1001}
    arguments = tuple(
        own[value] if isinstance(value, search._Slot) else value for value in statement.arguments
    )
    assert peak(rds, rds.new_database(template=migration.database), statement.sql, arguments) < _MOST
