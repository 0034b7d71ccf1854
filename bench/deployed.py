"""The same load, bounded, on a deployed server, in an experiment of its own that is deleted afterwards."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter
from typing import Any

from bench import training
from bench.corpus import EPOCH_MS, HISTORY_KEY, HISTORY_POINTS, Corpus
from bench.environment import describe
from bench.load import LoadClient, closed_loop
from bench.measure import Stretch, as_record
from bench.records import BenchRecord
from bench.run import Plan, chosen, raise_file_limit
from bench.scenarios import API, create_run
from bench.wire import Wire

RUNS = 200
TRAINING_RUNS = 50
# Not a deployment's limit, but a load that disturbs nobody.
CONCURRENCIES = (1, 16)


class BenchTargetError(RuntimeError):
    """The deployment refused a call that the benchmark cannot do without."""


def wire_to(url: str, environ: dict[str, str]) -> Wire:
    """How to reach a deployment, with the bearer token from MLFLOW_TRACKING_TOKEN if there is one."""
    token = environ.get("MLFLOW_TRACKING_TOKEN")
    return Wire.to(
        url,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        ca_file=environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None,
    )


async def load_deployed(
    url: str, plan: Plan, *, say: Callable[[str], None]
) -> tuple[list[BenchRecord], dict[str, Any]]:
    """Measure what needs no access to the database; every latency includes the network.

    Raises:
        BenchTargetError: the experiment or a run in it could not be created.
    """
    began = perf_counter()
    raise_file_limit()
    # Never fill a deployment with 100,000 runs.
    scenarios = [each for each in chosen(plan) if each.name != "search-runs-100000"]
    wire = wire_to(url, dict(os.environ))
    client = LoadClient(wire)
    experiment = await _create_experiment(client, wire)
    say(f"experiment {experiment} on {wire.host}")
    records: list[BenchRecord] = []
    try:
        corpus = await _fill(client, wire, experiment)
        for concurrency in CONCURRENCIES:
            for scenario in scenarios:
                requests = scenario.requests(wire, corpus)
                outcome, _ = await closed_loop(
                    wire,
                    requests,
                    first=CONCURRENCIES.index(concurrency) * 10 * RUNS,
                    concurrency=concurrency,
                    seconds=plan.seconds * scenario.seconds,
                    patience=plan.patience,
                )
                record = as_record(
                    scenario,
                    concurrency=concurrency,
                    system="deployed",
                    stretches=[Stretch(outcome, 0.0, 0.0)],
                    more={},
                )
                records.append(record)
                say(
                    f"{concurrency:>3} × {scenario.name:<24} {record.rps or 0:,.1f}/s, "
                    f"p99 {record.p99_ms or 0:,.1f} ms, {record.errors} errors"
                )
        if plan.training_runs:
            seen = await training.train(
                wire, experiment=experiment, runs=TRAINING_RUNS, limit=plan.training_limit
            )
            lost = seen.lost_points(await training.points_over_api(wire, seen))
            records.append(training.as_record(seen, system="deployed", lost=lost))
    finally:
        await asyncio.shield(_delete_experiment(client, wire, experiment, say))
        client.close()
    metadata = describe(plan=asdict(plan), seconds=perf_counter() - began, postgresql={})
    return records, {**metadata, "host": wire.host}


async def _create_experiment(client: LoadClient, wire: Wire) -> str:
    name = f"bench-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    made = await _ask(client, wire.poster(f"{API}/experiments/create")(json.dumps({"name": name}).encode()))
    return str(made["experiment_id"])


async def _delete_experiment(
    client: LoadClient, wire: Wire, experiment: str, say: Callable[[str], None]
) -> None:
    body = json.dumps({"experiment_id": experiment}).encode()
    response = await client.call(wire.poster(f"{API}/experiments/delete")(body))
    if response.status == 200:
        say(f"experiment {experiment} deleted (MLflow keeps it as deleted until its garbage collection)")
    else:
        say(f"experiment {experiment} could not be deleted (status {response.status}): delete it by hand")


async def _fill(client: LoadClient, wire: Wire, experiment: str) -> Corpus:
    partial = Corpus(experiment, [], [], [], experiment, None)
    make = create_run(wire, partial)
    runs = [str((await _ask(client, make(number)))["run"]["info"]["run_id"]) for number in range(RUNS)]
    history = [
        {"key": HISTORY_KEY, "value": 1.0 / (1 + step), "timestamp": EPOCH_MS + step, "step": step}
        for step in range(HISTORY_POINTS)
    ]
    batch = wire.poster(f"{API}/runs/log-batch")
    for run in runs[:10]:
        await _ask(client, batch(json.dumps({"run_id": run, "metrics": history}).encode()))
    return Corpus(experiment, runs, runs, runs[:10], experiment, None)


async def _ask(client: LoadClient, request: bytes) -> dict[str, Any]:
    response = await client.call(request)
    if response.status != 200:
        what = response.body[:200].decode(errors="replace")
        raise BenchTargetError(
            f"the server answered {response.status or 'nothing'} {what!r}; check the URL, and the token in "
            "MLFLOW_TRACKING_TOKEN"
        )
    found = json.loads(response.body)
    assert isinstance(found, dict)
    return found
