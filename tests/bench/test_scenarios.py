from __future__ import annotations

import json
from typing import Any

import pytest

from bench.corpus import Corpus
from bench.floor import bare_write
from bench.scenarios import SCENARIOS, Scenario, distinct_bodies, points
from bench.wire import Wire

WIRE = Wire.to("http://127.0.0.1:5000")
BY_NAME = {each.name: each for each in SCENARIOS}
WRITES = [each for each in SCENARIOS if each.floor]


def parsed(request: bytes) -> tuple[str, dict[str, Any]]:
    """Method and path, and the JSON body, of a request whose length is checked."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert int(headers.get("Content-Length", "0")) == len(body)
    return lines[0].rsplit(" ", 1)[0], json.loads(body) if body else {}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_every_request_is_http_with_a_json_body_of_the_stated_length(
    scenario: Scenario, corpus: Corpus
) -> None:
    request = scenario.requests(WIRE, corpus)(7)
    line, _ = parsed(request)
    assert line.split()[0] in {"GET", "POST"}
    assert line.split()[1].startswith("/api/2.0/mlflow/")


@pytest.mark.parametrize("scenario", WRITES, ids=lambda each: each.name)
def test_no_write_is_sent_twice(scenario: Scenario, corpus: Corpus) -> None:
    request = scenario.requests(WIRE, corpus)
    made = [request(number) for number in range(50)]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    "name", ["log-batch-1", "log-batch-100", "log-batch-1000", "log-batch-1000-repeated"]
)
def test_a_batch_holds_as_many_metrics_as_it_says(name: str, corpus: Corpus) -> None:
    _, body = parsed(BY_NAME[name].requests(WIRE, corpus)(4))
    assert len(body["metrics"]) == BY_NAME[name].rows
    assert len({metric["key"] for metric in body["metrics"]}) == (
        10 if name.endswith("repeated") else BY_NAME[name].rows
    )


def test_batches_go_to_one_run_after_the_other(corpus: Corpus) -> None:
    request = BY_NAME["log-batch-1"].requests(WIRE, corpus)
    assert [parsed(request(number))[1]["run_id"] for number in range(4)] == [*corpus.runs, corpus.runs[0]]


@pytest.mark.parametrize("keys", [1, 10, 100])
def test_no_point_is_ever_logged_again(keys: int) -> None:
    logged = [
        (each.key, each.timestamp, each.step)
        for body in range(3)
        for each in points(body, count=100, keys=keys)
    ]
    assert len(set(logged)) == len(logged)


def test_points_that_do_not_divide_among_their_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="100"):
        points(0, count=100, keys=7)


def test_single_metrics_last_for_millions_of_calls() -> None:
    assert distinct_bodies(1) * 2_000 > 5_000_000


@pytest.mark.parametrize("name", ["log-batch-1", "log-batch-100", "log-batch-1000"])
def test_bare_sql_writes_the_rows_that_the_request_logs(name: str, corpus: Corpus) -> None:
    run, keys, values, timestamps, steps = bare_write(name, corpus).arguments(5)
    _, body = parsed(BY_NAME[name].requests(WIRE, corpus)(5))
    assert run == body["run_id"]
    assert [
        {"key": key, "value": value, "timestamp": timestamp, "step": step}
        for key, value, timestamp, step in zip(keys, values, timestamps, steps, strict=True)
    ] == body["metrics"]


def test_bare_sql_knows_the_latest_value_of_every_repeated_key(corpus: Corpus) -> None:
    _, keys, values, _, steps, latest_keys, latest_values, _, latest_steps = bare_write(
        "log-batch-1000-repeated", corpus
    ).arguments(2)
    latest = {}
    for key, value, step in sorted(zip(keys, values, steps, strict=True), key=lambda row: row[2]):
        latest[key] = (value, step)
    assert dict(zip(latest_keys, zip(latest_values, latest_steps, strict=True), strict=True)) == latest


@pytest.mark.parametrize("scenario", WRITES, ids=lambda each: each.name)
def test_every_scenario_with_a_floor_has_one(scenario: Scenario, corpus: Corpus) -> None:
    assert bare_write(scenario.name, corpus).statement


def test_reads_have_no_floor(corpus: Corpus) -> None:
    with pytest.raises(KeyError):
        bare_write("get-run", corpus)
