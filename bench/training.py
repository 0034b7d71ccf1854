"""Many training runs at once: what a cluster of jobs does to a tracking server.

Each run has its own connection and behaves as MLflow's client does: it creates a run, logs its parameters,
batches of metrics and a tag, and finishes it. It retries what the client retries, as often and after the same
pauses. It does not pause between calls, which is harsher than training.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from time import perf_counter

from bench.corpus import EPOCH_MS
from bench.load import LoadClient, Response
from bench.records import BenchRecord, percentile_ms
from bench.scenarios import API
from bench.wire import Wire

BATCHES = 10
METRICS_PER_BATCH = 10
POINTS_PER_RUN = BATCHES * METRICS_PER_BATCH
CALLS_PER_RUN = BATCHES + 4

# The client's defaults: MLFLOW_HTTP_REQUEST_MAX_RETRIES, _BACKOFF_FACTOR, _BACKOFF_JITTER and the
# statuses of its http_request.
_RETRIES = 7
_BACKOFF_FACTOR = 2.0
_JITTER_SECONDS = 1.0
_RETRIED = frozenset({0, 408, 429, 500, 502, 503, 504})


@dataclass
class TrainingLoadResult:
    """The result of all runs together. `batch_seconds` are the log-batch calls of metrics as a run sees them:
    from the first try to success."""

    started: int
    finished: int = 0
    calls: int = 0
    failed_calls: int = 0
    retries: int = 0
    seconds: float = 0.0
    batch_seconds: list[float] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    def lost_points(self, found: dict[str, int]) -> int:
        """Acknowledged points that are not among those `found` (run id to number)."""
        return sum(max(0, count - found.get(run, 0)) for run, count in self.acknowledged.items())


def pause_before_retry(attempt: int, retry_after: str | None, *, jitter: float) -> float:
    """Seconds that MLflow's client (urllib3) waits before its `attempt`-th retry, counting from 1."""
    if retry_after is not None and retry_after.isdigit():
        return float(retry_after)
    if attempt <= 1:
        return 0.0
    return min(120.0, _BACKOFF_FACTOR * 2.0 ** (attempt - 1)) + jitter


async def train(wire: Wire, *, experiment: str, runs: int, limit: float) -> TrainingLoadResult:
    """Train `runs` runs at once; a run that has not finished after `limit` seconds has failed."""
    training = TrainingLoadResult(started=runs)
    began = perf_counter()
    tasks = [asyncio.ensure_future(_one(wire, experiment, number, training)) for number in range(runs)]
    _, late = await asyncio.wait(tasks, timeout=limit)
    training.seconds = perf_counter() - began
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if late:
        training.failures["given up at the time limit"] = len(late)
        training.failed_calls += len(late)
    return training


async def _one(wire: Wire, experiment: str, number: int, training: TrainingLoadResult) -> None:
    client = LoadClient(wire)
    try:
        await _run(client, wire, experiment, number, training)
    finally:
        client.close()


async def _run(
    client: LoadClient, wire: Wire, experiment: str, number: int, training: TrainingLoadResult
) -> None:
    batch = wire.poster(f"{API}/runs/log-batch")
    created = await _insist(
        client,
        wire.poster(f"{API}/runs/create")(
            _json(
                experiment_id=experiment,
                user_id="bench",
                start_time=EPOCH_MS,
                run_name=f"training-{number}",
                tags=[{"key": "mlflow.user", "value": "bench"}],
            )
        ),
        training,
    )
    if created is None:
        return
    run = json.loads(created.body)["run"]["info"]["run_id"]
    params = [{"key": f"param_{each}", "value": str(each)} for each in range(10)]
    if await _insist(client, batch(_json(run_id=run, metrics=[], params=params, tags=[])), training) is None:
        return
    for step in range(BATCHES):
        began = perf_counter()
        done = await _insist(client, batch(_metrics(run, step)), training)
        training.batch_seconds.append(perf_counter() - began)
        if done is not None:
            training.acknowledged[run] = training.acknowledged.get(run, 0) + METRICS_PER_BATCH
    tag = wire.poster(f"{API}/runs/set-tag")
    await _insist(client, tag(_json(run_uuid=run, run_id=run, key="stage", value="done")), training)
    update = wire.poster(f"{API}/runs/update")
    end = _json(run_uuid=run, run_id=run, status="FINISHED", end_time=EPOCH_MS + 60_000)
    if await _insist(client, update(end), training) is not None:
        training.finished += 1


def _metrics(run: str, step: int) -> bytes:
    metrics = [
        {
            "key": f"metric_{key}",
            "value": 1.0 / (1 + step + key),
            "timestamp": EPOCH_MS + step * 1000,
            "step": step,
        }
        for key in range(METRICS_PER_BATCH)
    ]
    return _json(run_id=run, metrics=metrics, params=[], tags=[])


async def _insist(client: LoadClient, request: bytes, training: TrainingLoadResult) -> Response | None:
    training.calls += 1
    attempt = 0
    while True:
        response = await client.call(request)
        if 200 <= response.status < 300:
            return response
        attempt += 1
        if response.status not in _RETRIED or attempt > _RETRIES:
            training.failed_calls += 1
            name = str(response.status or "no response")
            training.failures[name] = training.failures.get(name, 0) + 1
            return None
        training.retries += 1
        await asyncio.sleep(
            pause_before_retry(attempt, response.retry_after, jitter=random.uniform(0, _JITTER_SECONDS))
        )


async def points_over_api(wire: Wire, training: TrainingLoadResult, clients: int = 8) -> dict[str, int]:
    """How many points of every run the server has, according to its API."""
    path = f"{API}/metrics/get-history"
    waiting = iter(list(training.acknowledged))
    found: dict[str, int] = {}

    async def ask() -> None:
        client = LoadClient(wire)
        for run in waiting:
            count = 0
            for key in range(METRICS_PER_BATCH):
                response = await client.call(wire.get(path, run_id=run, metric_key=f"metric_{key}"))
                count += len(json.loads(response.body).get("metrics", [])) if response.status == 200 else 0
            found[run] = count
        client.close()

    await asyncio.gather(*(ask() for _ in range(clients)))
    return found


def as_record(seen: TrainingLoadResult, *, system: str, lost: int) -> BenchRecord:
    """The record of training runs; latencies are those of log-batch as a run sees them."""
    return BenchRecord(
        scenario=f"training-{seen.started}",
        concurrency=seen.started,
        system=system,
        rps=(seen.calls - seen.failed_calls) / seen.seconds,
        p50_ms=percentile_ms(seen.batch_seconds, 0.5),
        p99_ms=percentile_ms(seen.batch_seconds, 0.99),
        errors=seen.failed_calls,
        more={
            "runs_finished": seen.finished,
            "seconds": seen.seconds,
            "retries": seen.retries,
            "failures": seen.failures,
            "points_acknowledged": sum(seen.acknowledged.values()),
            "points_lost": lost,
        },
    )


def _json(**fields: object) -> bytes:
    return json.dumps(fields).encode()
