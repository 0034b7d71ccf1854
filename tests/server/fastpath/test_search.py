"""How a search is put to PostgreSQL; what it finds is compared with stock in test_same_answers.py."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.fastpath import history, reading, rendering, search
from mlflow_aws_server.limits import RUN_BYTES, LimitError

from tests.server.fastpath.alone import RUN, Place

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


class Threads:
    """Remembers which threads called a function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self.names: list[str] = []
        function = getattr(module, name)

        def called(*arguments: Any, **more: Any) -> Any:
            self.names.append(threading.current_thread().name)
            return function(*arguments, **more)

        monkeypatch.setattr(module, name, called)

    @property
    def were_beside(self) -> bool:
        """All calls were made beside the event loop."""
        return bool(self.names) and threading.current_thread().name not in self.names


async def test_a_new_query_is_compiled_beside_the_event_loop_and_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = Threads(monkeypatch, search, "_compiled")
    await kept_after(place, filter="tags.compiled_beside = 'the loop'")
    assert compiled.were_beside
    assert len(compiled.names) == 1


async def test_a_large_page_is_rendered_beside_the_event_loop(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.add_run()
    place.sql(
        "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
        f"SELECT 'm' || i, 1, 1, 1, false, '{RUN}' FROM generate_series(1, 3000) i"
    )
    place.sql(
        "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) "
        f"SELECT 'm', 1, 1, i, false, '{RUN}' FROM generate_series(1, 3000) i"
    )
    pool = ConnectionPool(place.connect, connections=1, queue=1)
    rendered = Threads(monkeypatch, rendering, "listed")
    page = json.loads(await search.search_runs(pool, b'{"experiment_ids": ["0"]}'))
    assert len(page["runs"][0]["data"]["metrics"]) == 3000
    points = json.loads(await history.history(pool, f"run_id={RUN}&metric_key=m".encode()))
    assert len(points["metrics"]) == 3000
    await history.bulk_interval(pool, f"run_ids={RUN}&metric_key=m&max_results=2500".encode())
    assert rendered.were_beside
    assert len(rendered.names) == 3
    await pool.close()


async def test_a_page_that_is_too_large_is_answered_with_its_first_runs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_MOST_RUNS", 2)
    place.sql(
        "INSERT INTO runs (run_uuid, user_id, status, start_time, lifecycle_stage, experiment_id) "
        "SELECT md5(i::text), 'u', 'RUNNING', i, 'active', 0 FROM generate_series(1, 3) i"
    )
    pool = ConnectionPool(place.connect, connections=1, queue=1)
    question = {"experiment_ids": ["0"], "max_results": 10_000}
    page = json.loads(await search.search_runs(pool, json.dumps(question).encode()))
    assert len(page["runs"]) == 2
    question["page_token"] = page["next_page_token"]
    rest = json.loads(await search.search_runs(pool, json.dumps(question).encode()))
    assert len(rest["runs"]) == 1
    assert "next_page_token" not in rest
    await pool.close()


async def test_no_number_of_queries_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_compiled", lambda *query: search._Statement(repr(query), (), False))
    for number in range(1000):
        await search._statement((f"tags.a = '{number}'", (), "ALL", True))
        await search._statement((f"run_id IN ('{number}', '{'x' * 1000}')", (), "ALL", True))
    assert len(search._kept) == 512
    assert all(len(query[0]) <= 1000 for query in search._kept)
    search._kept.clear()


def plant(place: Place, *, runs: int, tags: int, characters: int) -> None:
    """Runs with many tags, whose values PostgreSQL cannot compress."""
    place.sql(
        "INSERT INTO runs (run_uuid, name, user_id, status, start_time, lifecycle_stage, experiment_id) "
        f"SELECT md5(i::text), i, 'u', 'RUNNING', i, 'active', 0 FROM generate_series(1, {runs}) i"
    )
    place.sql("ALTER TABLE tags ALTER COLUMN value SET STORAGE EXTERNAL")
    place.sql(
        "INSERT INTO tags (key, value, run_uuid) "
        f"SELECT 't' || t, repeat('x', {characters}), md5(i::text) "
        f"FROM generate_series(1, {runs}) i, generate_series(1, {tags}) t"
    )


async def pages(place: Place, **question: Any) -> list[list[dict[str, Any]]]:
    """All pages of a search."""
    pool = ConnectionPool(place.connect, connections=1, queue=1)
    found = []
    token = ""
    while token is not None:
        body = json.dumps({"experiment_ids": ["0"], "page_token": token, **question}).encode()
        answer = await search.search_runs(pool, body)
        assert len(answer) < 1.2 * RUN_BYTES.most
        page = json.loads(answer)
        found.append(page["runs"])
        token = page.get("next_page_token")
    await pool.close()
    return found


@pytest.mark.parametrize("order", [[], ["attributes.start_time DESC"], ["tags.t1", "attributes.run_name"]])
async def test_a_page_with_too_many_bytes_ends_early(place: Place, order: list[str]) -> None:
    plant(place, runs=20, tags=500, characters=8_000)
    found = await pages(place, order_by=order)
    assert [len(page) for page in found] == [4, 4, 4, 4, 4]
    assert len({run["info"]["run_id"] for page in found for run in page}) == 20
    assert all(len(run["data"]["tags"]) == 500 for page in found for run in page)


async def test_a_run_that_carries_much_is_answered_whole(place: Place) -> None:
    plant(place, runs=3, tags=2_500, characters=100)
    found = await pages(place)
    assert [[len(run["data"]["tags"]) for run in page] for page in found] == [[2500]] * 3


async def test_a_run_that_no_answer_holds_is_refused_and_can_be_made_smaller(place: Place) -> None:
    plant(place, runs=2, tags=4_000, characters=8_000)
    pool = ConnectionPool(place.connect, connections=1, queue=1)
    run = place.sql("SELECT run_uuid FROM runs")[0][0]
    for question in (
        search.search_runs(pool, b'{"experiment_ids": ["0"]}'),
        reading.get_run(pool, f"run_id={run}".encode()),
    ):
        with pytest.raises(LimitError, match="bytes of params, tags, metrics"):
            await question
    await pool.close()
    place.sql("DELETE FROM tags WHERE key LIKE 't3%'")
    assert [len(page) for page in await pages(place)] == [1, 1]


async def test_data_sets_count(place: Place) -> None:
    plant(place, runs=4, tags=1, characters=1)
    place.sql(
        "INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, "
        "dataset_source, dataset_profile) VALUES ('d', 0, 'd', 'd', 's', 's', repeat('x', 6000000))"
    )
    place.sql(
        "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id) "
        "SELECT run_uuid, 'DATASET', 'd', 'RUN', run_uuid FROM runs"
    )
    assert [len(page) for page in await pages(place)] == [2, 2]
    place.sql(
        "INSERT INTO input_tags (input_uuid, name, value) SELECT input_uuid, i, 'v' "
        "FROM inputs, generate_series(1, 5) i"
    )
    pool = ConnectionPool(place.connect, connections=1, queue=1)
    with pytest.raises(LimitError, match="data sets"):
        await search.search_runs(pool, b'{"experiment_ids": ["0"]}')
    await pool.close()
