"""People's lists and charts come from the reader; everything else, and everything when it fails, does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mlflow_aws_server.asgi import MAY_LAG
from mlflow_aws_server.database.connect import AsyncConnection, connect_async
from mlflow_aws_server.fastpath import FastPath, middleware

from local.parts.postgres import SUPERUSER, Postgres
from tests.server.fastpath.alone import RUN, Behind
from tests.server.fastpath.harness import Answer, Message, call
from tests.server.standby import DATABASE, Pair, replicated

API = "/ajax-api/2.0/mlflow"
METRIC = {"run_id": RUN, "key": "m", "value": 1.0, "timestamp": 1}


@pytest.fixture(scope="module")
def cluster(tested_mlflow: None) -> Iterator[Pair]:
    with replicated() as pair:
        pair.write(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, lifecycle_stage, experiment_id) "
            f"VALUES ('{RUN}', 'n', 'u', 'RUNNING', 1, 'active', 0)"
        )
        yield pair


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "_RECHECK_SECONDS", 0.2)


@pytest.fixture
def pair(cluster: Pair) -> Pair:
    cluster.write("TRUNCATE metrics, latest_metrics, params")
    cluster.catch_up()
    return cluster


class Caller:
    """A person or a program, in front of the fast path."""

    def __init__(self, app: Any, *, may_lag: bool) -> None:
        self._app = app
        self._may_lag = may_lag

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        await self._app({**scope, MAY_LAG: self._may_lag}, receive, send)

    async def log(self) -> None:
        answer = await self._post("runs/log-metric", METRIC)
        assert (answer.status, answer.body) == (200, b"{}")

    async def seen(self) -> list[int]:
        """How many metrics the search shows, how many points a history and a chart have."""
        found = await self._post("runs/search", {"experiment_ids": ["0"]})
        history = await self._get("metrics/get-history", f"run_id={RUN}&metric_key=m")
        chart = await self._get("metrics/get-history-bulk-interval", f"run_ids={RUN}&metric_key=m")
        (run,) = found.json["runs"]
        return [
            len(run["data"].get("metrics", ())),
            *(len(a.json.get("metrics", ())) for a in (history, chart)),
        ]

    async def opened(self) -> int:
        """How many metrics the page of the run shows."""
        answer = await self._get("runs/get", f"run_id={RUN}")
        return len(answer.json["run"]["data"].get("metrics", ()))

    async def _post(self, path: str, body: object) -> Answer:
        headers = ((b"content-type", b"application/json"),)
        return await call(self, "POST", f"{API}/{path}", body=json.dumps(body).encode(), headers=headers)

    async def _get(self, path: str, query: str) -> Answer:
        return await call(self, "GET", f"{API}/{path}", query=query, headers=())


@asynccontextmanager
async def serving(pair: Pair) -> AsyncIterator[tuple[Caller, Caller]]:
    """A person and a program of one server."""

    def opener(postgres: Postgres) -> Any:
        async def open_connection() -> AsyncConnection:
            return await connect_async(
                host=str(postgres.socket_directory),
                port=postgres.port,
                user=SUPERUSER,
                database=DATABASE,
                ssl=False,
            )

        return open_connection

    app = FastPath(
        Behind(),
        opener(pair.writer),
        connections=2,
        open_reader=opener(pair.reader),
        reader_connections=2,
    )
    await app.startup()
    try:
        assert app.serving
        yield Caller(app, may_lag=True), Caller(app, may_lag=False)
    finally:
        await app.shutdown()


async def until(caller: Caller, expected: list[int]) -> None:
    async with asyncio.timeout(20):
        while await caller.seen() != expected:
            await asyncio.sleep(0.05)


async def test_people_s_lists_and_charts_come_from_the_reader(pair: Pair) -> None:
    async with serving(pair) as (person, program):
        with pair.lagging():
            await until(person, [0, 0, 0])
            await program.log()
            # The reader does not know yet: these answers can only be its own.
            await until(person, [0, 0, 0])
        await until(person, [1, 1, 1])


async def test_programs_read_what_was_written_at_once_however_far_the_reader_is_behind(pair: Pair) -> None:
    async with serving(pair) as (person, program):
        with pair.lagging():
            await until(person, [0, 0, 0])
            await program.log()
            assert await program.seen() == [1, 1, 1]


async def test_the_page_of_a_run_never_lags(pair: Pair) -> None:
    async with serving(pair) as (person, program):
        with pair.lagging():
            await until(person, [0, 0, 0])
            await program.log()
            assert await person.opened() == 1


async def test_the_writer_answers_while_the_reader_is_gone_and_the_reader_when_it_is_back(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(pair) as (person, program):
        await until(person, [0, 0, 0])
        pair.reader.stop(immediate=True)
        try:
            await program.log()
            assert await person.seen() == [1, 1, 1]
        finally:
            pair.reader.start()
        assert "the writer answers instead" in caplog.text
        with pair.lagging():
            pair.write("TRUNCATE metrics, latest_metrics")
            await until(person, [1, 1, 1])


async def test_a_reader_that_is_not_there_at_the_start_costs_no_answer(pair: Pair) -> None:
    pair.reader.stop(immediate=True)
    try:
        async with serving(pair) as (person, program):
            await program.log()
            assert await person.seen() == [1, 1, 1]
    finally:
        pair.reader.start()


async def test_a_reader_with_another_schema_is_not_asked(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    pair.write("UPDATE alembic_version SET version_num = 'x' || version_num")
    with pair.lagging():
        pair.write("UPDATE alembic_version SET version_num = substr(version_num, 2)")
        async with serving(pair) as (person, program):
            async with asyncio.timeout(20):
                while "the writer answers instead: schema x" not in caplog.text:
                    await asyncio.sleep(0.05)
            await program.log()
            assert await person.seen() == [1, 1, 1]
