"""How a search is put to PostgreSQL; what it finds is compared with stock in test_same_answers.py."""

from __future__ import annotations

import json
from typing import Any

from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.fastpath import search

from tests.server.fastpath.alone import Place

KEPT = """
    SELECT statement FROM pg_prepared_statements
    WHERE statement LIKE '%WITH page AS%' AND statement NOT LIKE '%pg_prepared%'
"""


async def kept_after(place: Place, **question: Any) -> int:
    """How many searches the connection keeps prepared after asking this twice."""
    pool = ConnectionPool(place.connect, connections=1, queue=1)
    body = json.dumps({"experiment_ids": ["0"], **question}).encode()
    for _ in range(2):
        assert await search.search_runs(pool, body) == b"{}"

    async def look(connection: AsyncConnection) -> int:
        return len(await connection.fetch(KEPT))

    kept = await pool.run(look)
    await pool.close()
    return kept


async def test_a_search_for_the_newest_runs_is_planned_once(place: Place) -> None:
    assert await kept_after(place, order_by=["attributes.start_time DESC"]) == 1


async def test_a_search_with_conditions_is_planned_for_its_own_values(place: Place) -> None:
    assert await kept_after(place, filter="metrics.loss < 0.5 and params.seed = '7'") == 0
    assert await kept_after(place, order_by=["metrics.loss DESC"]) == 0
