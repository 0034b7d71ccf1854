"""What is measured: for each scenario, the n-th request it sends.

A scenario never repeats a write: every metric is a new row and every parameter a new key, so that no system
can answer from what it has already seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.corpus import EPOCH_MS, HISTORY_KEY, Corpus
from bench.load import NextRequest
from bench.wire import Wire

API = "/api/2.0/mlflow"


def distinct_bodies(count: int) -> int:
    """How many bodies of `count` metrics to make. Each is sent once to every run before the next is, so that
    with 2,000 runs no system is fast enough to use them up."""
    return 4096 if count == 1 else 64


@dataclass(frozen=True)
class Scenario:
    """One kind of call.

    `rows` is how many rows a call adds to the table `metrics`. `floor` says that bench.floor has the same
    write as bare SQL. `seconds` scales the time measured: slow calls need more of it.
    """

    name: str
    title: str
    requests: Callable[[Wire, Corpus], NextRequest]
    rows: int = 0
    floor: bool = False
    seconds: float = 1.0


@dataclass(frozen=True)
class Point:
    """One value of a metric."""

    key: str
    value: float
    timestamp: int
    step: int


def points(body: int, *, count: int, keys: int) -> list[Point]:
    """The metrics of the `body`-th batch: `count` different points over `keys` keys.

    The steps of a key go on from body to body, as in training.
    """
    if count % keys:
        raise ValueError(f"{count} points do not divide among {keys} keys")
    each = count // keys
    return [
        Point(
            key=f"metric_{key:04d}",
            value=1.0 / (1 + body * each + step) + key,
            timestamp=EPOCH_MS + (body * each + step) * 1000 + key,
            step=body * each + step,
        )
        for step in range(each)
        for key in range(keys)
    ]


def spread(number: int, runs: int) -> tuple[int, int]:
    """Which run (0..runs-1) a call goes to, and how many calls that run has had before."""
    return number % runs, number // runs


def log_batch(*, count: int, keys: int) -> Callable[[Wire, Corpus], NextRequest]:
    """log-batch calls of `count` metrics."""

    def requests(wire: Wire, corpus: Corpus) -> NextRequest:
        post = wire.poster(f"{API}/runs/log-batch")
        tails = [
            b'", "metrics": %b, "params": [], "tags": []}'
            % _json([vars(point) for point in points(body, count=count, keys=keys)])
            for body in range(distinct_bodies(count))
        ]
        runs = _ascii(corpus.runs)

        def request(number: int) -> bytes:
            run, body = spread(number, len(runs))
            return post(b'{"run_id": "%b%b' % (runs[run], tails[body % len(tails)]))

        return request

    return requests


def log_metric(wire: Wire, corpus: Corpus) -> NextRequest:
    """log-metric calls."""
    post = wire.poster(f"{API}/runs/log-metric")
    runs = _ascii(corpus.runs)

    def request(number: int) -> bytes:
        run, step = spread(number, len(runs))
        return post(
            b'{"run_uuid": "%b", "run_id": "%b", "key": "single", "value": %d.5, "timestamp": %d, "step": %d}'
            % (runs[run], runs[run], step, EPOCH_MS + step, step)
        )

    return request


def log_parameter(wire: Wire, corpus: Corpus) -> NextRequest:
    """log-parameter calls, each a new key."""
    return _keyed(wire, corpus, "log-parameter", key=b"parameter_%d")


def set_tag(wire: Wire, corpus: Corpus) -> NextRequest:
    """set-tag calls; a run's second one overwrites its first."""
    return _keyed(wire, corpus, "set-tag", key=b"note")


def _keyed(wire: Wire, corpus: Corpus, call: str, *, key: bytes) -> NextRequest:
    post = wire.poster(f"{API}/runs/{call}")
    runs = _ascii(corpus.runs)

    def request(number: int) -> bytes:
        run, turn = spread(number, len(runs))
        named = key % turn if b"%d" in key else key
        return post(
            b'{"run_uuid": "%b", "run_id": "%b", "key": "%b", "value": "value %d"}'
            % (runs[run], runs[run], named, turn)
        )

    return request


def create_run(wire: Wire, corpus: Corpus) -> NextRequest:
    """create-run calls with the tags that the client's fluent API sends."""
    post = wire.poster(f"{API}/runs/create")
    tags = _json(
        [
            {"key": "mlflow.user", "value": "bench"},
            {"key": "mlflow.source.name", "value": "train.py"},
            {"key": "mlflow.source.type", "value": "LOCAL"},
        ]
    )

    def request(number: int) -> bytes:
        return post(
            b'{"experiment_id": "%b", "user_id": "bench", "start_time": %d, "tags": %b, "run_name": "new-%d"}'
            % (corpus.experiment.encode(), EPOCH_MS + number, tags, number)
        )

    return request


def update_run(wire: Wire, corpus: Corpus) -> NextRequest:
    """update-run calls that finish a run."""
    post = wire.poster(f"{API}/runs/update")
    runs = _ascii(corpus.runs)

    def request(number: int) -> bytes:
        run, _ = spread(number, len(runs))
        return post(
            b'{"run_uuid": "%b", "run_id": "%b", "status": "FINISHED", "end_time": %d}'
            % (runs[run], runs[run], EPOCH_MS + number)
        )

    return request


def get_run(wire: Wire, corpus: Corpus) -> NextRequest:
    """get-run calls over runs with 5 metrics, 5 parameters and 4 tags."""
    made = [wire.get(f"{API}/runs/get", run_uuid=run, run_id=run) for run in corpus.readable]
    return lambda number: made[number % len(made)]


def get_history(wire: Wire, corpus: Corpus) -> NextRequest:
    """get-history calls over histories of 100 points."""
    path = f"{API}/metrics/get-history"
    made = [wire.get(path, run_uuid=run, run_id=run, metric_key=HISTORY_KEY) for run in corpus.with_history]
    return lambda number: made[number % len(made)]


def search_runs(*, large: bool, best: bool = False) -> Callable[[Wire, Corpus], NextRequest]:
    """search-runs calls for 100 runs: the latest ones, or the best by a metric among those that match."""

    def requests(wire: Wire, corpus: Corpus) -> NextRequest:
        experiment = corpus.large_experiment if large else corpus.small_experiment
        body: dict[str, Any] = {
            "experiment_ids": [experiment],
            "filter": "metrics.metric_1 < 0.5 and params.param_1 = '7'" if best else "",
            "run_view_type": "ACTIVE_ONLY",
            "max_results": 100,
            "order_by": ["metrics.metric_1 ASC"] if best else ["attributes.start_time DESC"],
        }
        made = wire.poster(f"{API}/runs/search")(_json(body))
        return lambda _number: made

    return requests


SCENARIOS: Sequence[Scenario] = (
    Scenario("log-batch-1", "log-batch, 1 metric", log_batch(count=1, keys=1), rows=1, floor=True),
    Scenario("log-batch-100", "log-batch, 100 metrics", log_batch(count=100, keys=100), rows=100, floor=True),
    Scenario("log-batch-1000", "log-batch, 1,000 metrics", log_batch(count=1000, keys=1000), rows=1000,
             floor=True, seconds=2),
    Scenario("log-batch-1000-repeated", "log-batch, 1,000 metrics of 10 keys", log_batch(count=1000, keys=10),
             rows=1000, floor=True, seconds=2),
    Scenario("log-metric", "log-metric", log_metric, rows=1, floor=True),
    Scenario("log-parameter", "log-parameter", log_parameter, floor=True),
    Scenario("set-tag", "set-tag", set_tag, floor=True),
    Scenario("create-run", "create-run", create_run, floor=True),
    Scenario("update-run", "update-run", update_run, floor=True),
    Scenario("get-run", "get-run", get_run),
    Scenario("get-history", "metrics/get-history, 100 points", get_history),
    Scenario("search-runs-5000", "search-runs, latest 100 of 5,000", search_runs(large=False)),
    Scenario("search-runs-100000", "search-runs, latest 100 of 100,000", search_runs(large=True)),
    Scenario("search-runs-5000-best", "search-runs, best 100 by a metric, filtered, of 5,000",
             search_runs(large=False, best=True)),
)  # fmt: skip


def _json(value: Any) -> bytes:
    # The same separators as `requests`, which the MLflow client uses.
    return json.dumps(value).encode()


def _ascii(texts: Sequence[str]) -> list[bytes]:
    return [text.encode("ascii") for text in texts]
