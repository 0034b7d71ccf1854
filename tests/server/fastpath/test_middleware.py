"""When the fast path answers, when it steps aside, and how it behaves under pressure."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import asyncpg
import pytest
from mlflow_aws_server.database import pool
from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.fast_path_state import FastPathState
from mlflow_aws_server.fastpath import FastPath, middleware
from mlflow_aws_server.fastpath.middleware import ROUTES
from mlflow_aws_server.fastpath.schema import TESTED_HEADS
from mlflow_aws_server.metrics import METRICS

from local.state import PROJECT
from tests.server.fastpath.alone import RUN, Behind, Place, serving
from tests.server.fastpath.harness import Answer, Message, Pair, call

JSON = ((b"content-type", b"application/json"),)


def batch(**fields: Any) -> bytes:
    return json.dumps(
        {"run_id": RUN, "metrics": [{"key": "m", "value": 1.0, "timestamp": 1}], **fields}
    ).encode()


async def log(app: Any, body: bytes | None = None, **request: Any) -> Answer:
    return await call(
        app, "POST", "/api/2.0/mlflow/runs/log-batch", body=batch() if body is None else body, **request
    )


async def test_both_prefixes_are_served(place: Place) -> None:
    place.add_run()
    async with serving(place) as (app, behind):
        for prefix in ("/api/2.0", "/ajax-api/2.0"):
            answer = await call(app, "GET", f"{prefix}/mlflow/runs/get", query=f"run_id={RUN}", headers=())
            assert answer.status == 200
        assert behind.paths == []


@pytest.mark.parametrize("heads", [["0123456789ab"], [], [*TESTED_HEADS, "0123456789ab"]])
async def test_an_untested_schema_is_stocks(
    place: Place, heads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    place.sql("DELETE FROM alembic_version")
    for head in heads:
        place.sql(f"INSERT INTO alembic_version VALUES ('{head}')")
    async with serving(place) as (app, _):
        assert not app.serving
        assert (await log(app)).body == b"stock"
    assert "stepping aside" in caplog.text
    assert all(head in caplog.text for head in TESTED_HEADS)


@pytest.mark.parametrize(
    "variable",
    [
        "MLFLOW_ENABLE_WORKSPACES",
        "_MLFLOW_STATIC_PREFIX",
        "_MLFLOW_SERVER_ARTIFACTS_ONLY",
        "prometheus_multiproc_dir",
        "_MLFLOW_SERVER_READ_REPLICA_BACKEND_STORE",
    ],
)
async def test_a_configuration_it_does_not_know_is_stocks(
    place: Place, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "true")
    async with serving(place) as (app, _):
        assert (await log(app)).body == b"stock"
        assert place.opened == 0


async def test_another_version_of_mlflow_is_stocks(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_aws_server.fastpath.stock.VERSION", "3.99.0")
    async with serving(place) as (app, _):
        assert (await log(app)).body == b"stock"


async def test_it_serves_as_soon_as_the_database_is_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "_RECHECK_SECONDS", 0.05)
    monkeypatch.setattr(pool, "_FIRST_BACKOFF_SECONDS", 0.001)
    reachable = False
    real = place.connect

    async def not_yet() -> AsyncConnection:
        if not reachable:
            raise ConnectionRefusedError("not yet")
        return await real()

    place.connect = not_yet  # type: ignore[method-assign]
    place.add_run()
    async with serving(place) as (app, _):
        assert (await log(app)).body == b"stock"
        reachable = True
        async with asyncio.timeout(20):
            while not app.serving:
                await asyncio.sleep(0.02)
        assert (await log(app)).body == b"{}"


async def test_a_schema_that_changes_under_it_is_stocks_from_then_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "_RECHECK_SECONDS", 0.05)
    place.add_run()
    async with serving(place) as (app, behind):
        assert (await log(app)).body == b"{}"
        place.sql(
            "ALTER TABLE latest_metrics RENAME COLUMN is_nan TO nan; "
            "UPDATE alembic_version SET version_num = 'x'"
        )
        assert (await log(app, batch(tags=[]))).body == b"stock"
        assert behind.bodies == [batch(tags=[])]
        assert not app.serving
        await asyncio.sleep(0.2)
        assert not app.serving


async def test_a_schema_with_another_head_is_noticed_without_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "_RECHECK_SECONDS", 0.05)
    async with serving(place) as (app, _):
        assert app.serving
        place.sql("UPDATE alembic_version SET version_num = 'x'")
        async with asyncio.timeout(20):
            while app.serving:
                await asyncio.sleep(0.02)


async def test_a_column_added_by_a_migration_costs_no_call(place: Place) -> None:
    place.add_run()
    async with serving(place) as (app, behind):
        for _ in range(3):
            assert (await log(app)).body == b"{}"
        place.sql(
            "ALTER TABLE runs ADD COLUMN more text; ALTER TABLE metrics ALTER COLUMN key TYPE varchar(300)"
        )
        for _ in range(3):
            answer = await call(app, "GET", "/api/2.0/mlflow/runs/get", query=f"run_id={RUN}", headers=())
            assert answer.status == 200
            assert (await log(app)).body == b"{}"
        assert behind.paths == []


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": ()},
        {"headers": ((b"content-type", b"text/plain"),)},
        {"headers": ((b"content-type", b"application/jsonx"),)},
        {"headers": (*JSON, (b"content-encoding", b"gzip"))},
        {"headers": (*JSON, (b"transfer-encoding", b"chunked"))},
        {"headers": (*JSON, (b"x-mlflow-workspace", b"w"))},
        {"headers": (*JSON, (b"host", b"localhost"))},
        {"headers": (*JSON, (b"host", b"evil.example.com"))},
        {"headers": (*JSON, (b"origin", b"https://evil.example.com"))},
        {"headers": (*JSON, (b"origin", b"http://localhost"), (b"origin", b"http://localhost"))},
    ],
)
async def test_requests_only_stock_understands_reach_it_whole(place: Place, request_: dict[str, Any]) -> None:
    place.add_run()
    async with serving(place) as (app, behind):
        assert (await log(app, chunks=3, **request_)).body == b"stock"
        assert behind.bodies == [batch()]


async def test_a_body_in_pieces_is_served(place: Place) -> None:
    place.add_run()
    async with serving(place) as (app, _):
        assert (await log(app, chunks=7)).body == b"{}"


async def test_a_body_that_is_not_understood_reaches_stock_whole(place: Place) -> None:
    async with serving(place) as (app, behind):
        body = batch(unknown=1)
        assert (await log(app, body, chunks=5)).body == b"stock"
        assert behind.bodies == [body]


async def test_a_body_larger_than_any_call_needs_reaches_stock_unread(place: Place) -> None:
    async with serving(place) as (app, behind):
        body = batch(tags=[{"key": "t", "value": "x" * 5_000_000}])
        assert (await log(app, body, chunks=50)).body == b"stock"
        assert behind.bodies == [body]


async def test_an_unexpected_error_falls_back_to_stock(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> bytes:
        raise ZeroDivisionError

    path = "/api/2.0/mlflow/runs/log-batch"
    monkeypatch.setitem(ROUTES, path, middleware._Route("POST", broken))
    async with serving(place) as (app, behind):
        assert (await log(app)).body == b"stock"
        assert behind.bodies == [batch()]


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"origin", b"http://localhost:3000"),),
        ((b"origin", b"http://localhost"),),
        *(
            pytest.param(((b"origin", origin),), marks=pytest.mark.stock_may_serve)
            for origin in (b"https://evil.example.com", b"null")
        ),
    ],
)
def test_headers_for_browsers_are_those_of_stock(
    pair: Pair, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    run = pair.new_run()
    body = json.dumps({"experiment_ids": ["0"]}).encode()
    for _ in range(2):
        pair.same("GET", "/ajax-api/2.0/mlflow/runs/get", query=f"run_id={run}", headers=headers)
        pair.same("POST", "/ajax-api/2.0/mlflow/runs/search", body=body, headers=(*JSON, *headers))


async def test_too_many_waiting_calls_are_asked_to_come_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "_QUEUE", 3)
    place.add_run()
    async with serving(place) as (app, _):
        blocker = await place.connect()
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE metrics")
            calls = [asyncio.create_task(log(app)) for _ in range(4 + 3 + 5)]
            refused = [await done for done in asyncio.as_completed(calls[-5:])]
        answers = await asyncio.gather(*calls)
        await blocker.close()
    assert [a.status for a in refused] == [429] * 5
    assert all(dict(a.headers)[b"retry-after"] == b"1" for a in refused)
    assert all(a.json["error_code"] == "RESOURCE_EXHAUSTED" for a in refused)
    assert [a.status for a in answers[:7]] == [200] * 7


async def test_who_always_loses_is_told_so_and_asked_to_come_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_FIRST_BACKOFF_SECONDS", 0.0)
    place.add_run()
    place.sql(f"ALTER DATABASE {place.name} SET lock_timeout = '1ms'")
    async with serving(place) as (app, behind):
        other = await place.connect()
        async with other.transaction():
            await other.execute("LOCK TABLE metrics")
            answer = await log(app)
        await other.close()
        assert behind.paths == []
    assert answer.status == 503
    assert dict(answer.headers)[b"retry-after"] == b"1"
    assert answer.json["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert answer.json["message"].startswith("Other calls keep changing the same data.")


async def test_an_operation_that_finds_nothing_keeps_its_connection(place: Place) -> None:
    async with serving(place) as (app, _):
        before = place.opened
        for _ in range(5):
            await call(app, "GET", "/api/2.0/mlflow/runs/get", query=f"run_id={RUN}", headers=())
            await log(app)
        assert place.opened == before


async def test_connections_that_break_cost_retries_and_no_point(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_FIRST_BACKOFF_SECONDS", 0.01)
    place.add_run()
    acknowledged = 0

    async def trainer(app: FastPath, number: int) -> None:
        nonlocal acknowledged
        for step in range(40):
            point = {"key": f"m{number}", "value": step, "timestamp": 1, "step": step}
            answer = await log(app, batch(metrics=[point]))
            while answer.status in (429, 503):
                assert (b"retry-after" in dict(answer.headers)) == (answer.status == 429)
                await asyncio.sleep(0.02)
                answer = await log(app, batch(metrics=[point]))
            assert answer.body == b"{}"
            acknowledged += 1

    async def saboteur() -> None:
        admin = await place.connect()
        for _ in range(8):
            await asyncio.sleep(0.05)
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await admin.close()

    async with serving(place) as (app, behind):
        await asyncio.gather(saboteur(), *(trainer(app, i) for i in range(6)))
        assert behind.paths == []
    assert acknowledged == 240
    assert place.sql("SELECT count(*), count(DISTINCT (key, step)) FROM metrics") == [(240, 240)]
    assert place.sql("SELECT count(*), min(step) FROM latest_metrics") == [(6, 39)]


async def test_a_run_whose_answer_was_lost_is_created_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_FIRST_BACKOFF_SECONDS", 0.001)
    real = place.connect
    lost = 0

    class Forgetful:
        """Loses the answer to the first INSERT, after it took effect."""

        def __init__(self, connection: AsyncConnection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        async def fetchval(self, statement: str, *arguments: Any) -> Any:
            nonlocal lost
            result = await self._connection.fetchval(statement, *arguments)
            if "INSERT INTO runs" in statement and lost == 0:
                lost += 1
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
            return result

    async def forgetful() -> AsyncConnection:
        return Forgetful(await real())

    place.connect = forgetful  # type: ignore[method-assign]
    async with serving(place) as (app, behind):
        body = json.dumps(
            {"experiment_id": "0", "start_time": 1, "user_id": "u", "run_name": "once"}
        ).encode()
        answer = await call(app, "POST", "/api/2.0/mlflow/runs/create", body=body)
        assert behind.paths == []
    assert lost == 1
    run_id = answer.json["run"]["info"]["run_id"]
    assert place.sql("SELECT run_uuid, name FROM runs") == [(run_id, "once")]
    assert place.sql("SELECT key, value FROM tags") == [("mlflow.runName", "once")]


async def test_a_question_that_the_database_refuses_does_not_stop_the_fast_path(place: Place) -> None:
    async with serving(place) as (app, behind):
        for question in ("start_time > 99999999999999999999", "params.a = '\x00'"):
            body = json.dumps({"experiment_ids": ["0"], "filter": question}).encode()
            await call(app, "POST", "/api/2.0/mlflow/runs/search", body=body)
        assert len(behind.paths) == 2
        assert app.serving


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(place: Place) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": batch()[:20], "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/2.0/mlflow/runs/log-batch",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *JSON, (b"content-length", b"%d" % len(batch()))],
    }
    async with serving(place) as (app, behind):
        await app(scope, receive, send)
        assert sent == []
        assert behind.paths == []


async def test_it_lives_and_ends_with_the_application(place: Place) -> None:
    place.add_run()
    behind = Behind()
    app = FastPath(behind, place.connect, connections=4)
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    outgoing: asyncio.Queue[Message] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan"}, incoming.get, outgoing.put))
    await incoming.put({"type": "lifespan.startup"})
    assert (await outgoing.get())["type"] == "lifespan.startup.complete"
    assert app.serving
    assert (await log(app)).body == b"{}"
    await incoming.put({"type": "lifespan.shutdown"})
    assert (await outgoing.get())["type"] == "lifespan.shutdown.complete"
    await life
    assert not app.serving
    assert (
        place.sql(
            "SELECT 1 FROM pg_stat_activity "
            "WHERE application_name = 'mlflow-fast-path' AND datname = current_database()"
        )
        == []
    )


async def test_a_process_says_whether_its_fast_path_serves_and_what_it_left_to_stock(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(middleware, "_RECHECK_SECONDS", 0.05)
    place.add_run()
    state = FastPathState()
    app = FastPath(Behind(), place.connect, connections=4, state=state)
    await app.startup()
    METRICS.end_minute()
    assert state.said() == {"serving": True, "reason": None}
    await log(app)
    await log(app, batch(unknown=1))
    await log(app, headers=((b"content-type", b"text/plain"),))
    assert state.left == {"unknown fields": 1, "headers that only stock understands": 1}
    assert METRICS.end_minute().counts["FastPathFallbacks"] == 2
    (head,) = TESTED_HEADS
    for found, serves in (("x", False), (head, True), ("x", False)):
        place.sql(f"UPDATE alembic_version SET version_num = '{found}'")
        async with asyncio.timeout(20):
            while state.serving != serves:
                await asyncio.sleep(0.02)
        assert (state.reason is None) == serves
    await app.shutdown()
    assert caplog.text.count("fast path: serving") == caplog.text.count("fast path: stepping aside") == 2


def test_the_documented_calls_are_the_ones_that_it_knows() -> None:
    document = (PROJECT / "docs" / "fast-path.md").read_text()
    table = document.partition("## What it answers")[2].partition("## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([^`]+)`", " ".join(rows))) == set(middleware._HANDLERS)
    lagging = document.partition("\n## Readers")[2].partition("come from the reader endpoint")[0]
    calls = set(re.findall(r"`([a-z-]+/[a-z-]+)`", lagging))
    assert calls == middleware._MAY_LAG
