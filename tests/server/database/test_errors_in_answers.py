"""Clients are told what was wrong with their request, and nothing of how the server is built."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
from mlflow_aws_server.identity.access import ROUTES

if TYPE_CHECKING:
    from tests.server.database.harness import Stack

_NUL, _LONE = "a\x00b", "\ud800"
_LONG, _DIGITS = "x" * 6000, "9" * 30


@pytest.fixture(scope="module")
def run(stack: Stack) -> str:
    stack.server.new_model("taken", versions=1)
    return stack.server.new_run()


@pytest.mark.parametrize(
    ("path", "document", "status"),
    [
        ("experiments/create", {"name": "Default"}, 400),
        ("experiments/create", {"name": _NUL}, 400),
        ("experiments/create", {"name": "of-too-long", "tags": [{"key": _LONG, "value": "v"}]}, 400),
        ("experiments/update", {"experiment_id": "0", "new_name": _NUL}, 400),
        ("experiments/get-by-name", {"experiment_name": _NUL}, 400),
        ("registered-models/create", {"name": "taken"}, 400),
        ("registered-models/rename", {"name": "taken", "new_name": _LONG}, 400),
        ("registered-models/search", {"max_results": -(2**63)}, 400),
        ("model-versions/get", {"name": _NUL, "version": "1"}, 400),
        ("model-versions/get", {"name": "taken", "version": _DIGITS}, 404),
        ("runs/create", {"experiment_id": "0", "run_name": _LONG}, 400),
        ("runs/create", {"experiment_id": "0", "user_id": _LONE}, 400),
        ("runs/create", {"experiment_id": _DIGITS}, 404),
        ("runs/create", {"experiment_id": "987654"}, 404),
        ("runs/get", {"run_id": _NUL}, 400),
        ("runs/search", {"experiment_ids": ["0"], "filter": "tags.k RLIKE '('"}, 400),
        ("metrics/get-history", {"run_id": "r", "metric_key": _NUL}, 400),
        ("logged-models/search", {"experiment_ids": ["0"], "page_token": "%"}, 400),
        ("traces", {"experiment_ids": [_NUL]}, 400),
        ("/api/3.0/mlflow/datasets/d-1/records", {"page_token": "x"}, 400),
        ("/api/3.0/mlflow/datasets/create", {"name": "n", "tags": "{"}, 400),
        ("/graphql", {"query": "{"}, 400),
        ("/graphql", {"query": '{ mlflowGetRun(input: {runId: "a\\u0000"}) { run { __typename } } }'}, 200),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_stored_is_the_client_s_error(
    stack: Stack, run: str, path: str, document: dict[str, Any], status: int
) -> None:
    reads = re.search(r"get|search$|^traces$|records$", path) and path not in (
        "runs/search",
        "logged-models/search",
    )
    answer = stack.send("GET" if reads else "POST", path, document)
    assert answer.status == status, answer.body


def test_what_was_wrong_is_in_the_log_under_the_reference_that_the_answer_names(
    stack: Stack, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answer = stack.send("POST", "registered-models/rename", {"name": "taken", "new_name": "y" * 999})
    [reference] = re.findall(r"Reference: ([0-9a-f]{8})\.", answer.json["message"])
    [line] = [each.getMessage() for each in caplog.records if reference in each.getMessage()]
    assert "StringDataRightTruncation" in line
    assert "UPDATE registered_models" in line


def test_mlflow_still_knows_what_exists_already(stack: Stack, run: str) -> None:
    answer = stack.send("POST", "experiments/create", {"name": "Default"})
    assert answer.json["error_code"] == "RESOURCE_ALREADY_EXISTS"
    assert answer.json["message"].startswith("Experiment(name=Default) already exists.")


def test_a_read_only_database_is_one_to_come_back_to(stack: Stack, run: str) -> None:
    with stack.setting("default_transaction_read_only", "on"):
        for path, document in (
            ("experiments/create", {"name": "not-now"}),
            ("runs/log-batch", {"run_id": run, "tags": [{"key": "k", "value": "v"}]}),
            ("registered-models/create", {"name": "not-now"}),
        ):
            assert stack.send("POST", path, document).status == 503, path


def test_a_table_that_is_missing_is_not_the_client_s_error(stack: Stack, run: str) -> None:
    stack.sql("ALTER TABLE registered_models RENAME TO elsewhere")
    try:
        assert stack.send("GET", "registered-models/get", {"name": "taken"}).status == 503
    finally:
        stack.sql("ALTER TABLE elsewhere RENAME TO registered_models")


def test_a_database_out_of_reach_is_not_named(stack: Stack, run: str) -> None:
    database = stack.server.database
    stack.rds.administer(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    try:
        stack.reconnect()
        assert stack.send("GET", "registered-models/get", {"name": "taken"}).status == 503
        assert stack.send("GET", "runs/get", {"run_id": run}).status == 503
    finally:
        stack.rds.administer(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")


# PostgreSQL tries every way to cut the text into four.
_SLOW_TEXT = "a" * 300 + "b" + "a" * 299 + "c"
_SLOW = r"^(a+)(a+)(a+)(a+)b\1\2\3\4\1c$"
_LOCATION = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}


def test_a_search_that_takes_too_long_is_ended_once_and_not_to_be_sent_again(stack: Stack, run: str) -> None:
    stack.sql(
        "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status) VALUES ('tr-z', 0, 1, 'OK')"
    )
    stack.sql(f"INSERT INTO trace_tags (key, value, request_id) VALUES ('z', '{_SLOW_TEXT}', 'tr-z')")
    question = {"locations": [_LOCATION], "filter": f"tags.z RLIKE '{_SLOW}'"}
    before = stack.ended_by_time()
    with stack.setting("statement_timeout", "1s"):
        answer = stack.send("POST", "/api/3.0/mlflow/traces/search", question)
        stack.wait_until_idle()
    assert (answer.status, stack.ended_by_time() - before) == (400, 1), answer.body
    assert "20 seconds. Narrow the filter" in answer.json["message"]


def test_the_fast_path_neither_repeats_nor_hands_on_what_took_too_long(stack: Stack, run: str) -> None:
    served, before = len(stack.server.served), stack.ended_by_time()
    with stack.setting("statement_timeout", "1s"), stack.locked("runs"):
        searched = stack.send("POST", "runs/search", {"experiment_ids": ["0"]})
        # To send it again is safe, and without it a run would lose its last points.
        written = stack.send("POST", "runs/log-metric", _metric(run))
    assert (searched.status, written.status, stack.ended_by_time() - before) == (400, 503, 2)
    assert "20 seconds. Narrow the filter" in searched.json["message"]
    assert len(stack.server.served) == served


def test_who_waits_too_long_for_a_lock_is_asked_to_come_back(stack: Stack, run: str) -> None:
    with stack.setting("lock_timeout", "500ms"), stack.locked("runs, registered_models"):
        for path, document in (
            ("runs/log-metric", _metric(run)),
            ("registered-models/update", {"name": "taken", "description": "d"}),
        ):
            answer = stack.send("PATCH" if path.endswith("update") else "POST", path, document)
            assert answer.status == 503, path


def _metric(run: str) -> dict[str, Any]:
    return {"run_id": run, "key": "m", "value": 1, "timestamp": 1}


_STRINGS = (_NUL, _LONE, _LONG, _DIGITS, "(")
_NUMBERS = (2**63 - 1, -(2**63), 2**31)


@pytest.mark.slow
def test_no_route_fails_at_a_value_or_shows_how_the_server_is_built(stack: Stack, run: str) -> None:
    from tests.server.database.requests import changed, example, message_of, places

    known = {
        "experiment_id": "0", "run_id": run, "run_uuid": run, "name": "taken", "version": "1",
        "stage": "Staging", "filter": "", "filter_string": "", "page_token": "", "order_by": "name",
        "artifact_location": "s3://bucket/root/x", "source": "s3://bucket/root/x",
    }  # fmt: skip
    failed, asked = [], 0
    for route in ROUTES:
        kind = None if route.permission is None else message_of(route.method, route.path)
        # Both prefixes lead to the same handler; MLflow asks S3 for what is in the store of artifacts.
        if kind is None or route.path.startswith("/ajax-api") or "/artifacts/" in route.path:
            continue
        path = re.sub("<(id|key)>", "tr-1", route.path)
        document = example(kind, known)
        found = list(places(document))
        documents = [document]
        documents += [changed(document, {place: _NUL}) for place, value in found if type(value) is str]
        documents += [
            changed(document, {place: evil for place, value in found if type(value) is type(evil)})
            for evil in (*_STRINGS, *_NUMBERS)
        ]
        for tried in documents:
            asked += 1
            answer = stack.send(route.method, path, tried)
            if answer.status >= 500:
                failed.append((route.method, path, tried, answer.body))
    assert not failed, failed[:20]
    assert asked > 900


def test_locks_that_are_held_for_long_are_held_between_transactions(stack: Stack) -> None:
    """A copy in S3 takes minutes, and what idles in a transaction is ended."""
    from mlflow_aws_server.provenance.locks import ModelLocks
    from mlflow_aws_server.sealing.locks import SealLocks

    async def hold() -> None:
        seals = SealLocks(stack.server.open_connection)
        async with ModelLocks(stack.server.open_connection).hold("taken"), seals.hold("taken", 1) as held:
            assert held is not None
            await asyncio.sleep(0.2)
            assert not held.lost
            holders = stack.sql(
                "SELECT state FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory'"
                " AND datname = current_database()"
            )
            assert holders == [("idle",), ("idle",)]

    with stack.setting("idle_in_transaction_session_timeout", "50ms"):
        stack.server.loop.run_until_complete(hold())
