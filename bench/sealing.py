"""What sealing adds to the registration of a small model: one call after another, three systems in turn.

S3 is the emulator here: what counts is the ratio to stock, whose call does not touch S3.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from http.client import HTTPConnection
from statistics import median
from time import perf_counter
from typing import Any

from bench.credentials import credentials_endpoint
from bench.database import PostgresCluster, Sizes, cluster
from bench.environment import describe
from bench.identity import contributor
from bench.records import BenchRecord, percentile_ms
from bench.run import LOCAL, Plan, alone
from bench.systems import PUBLIC_URL, System, ours, serving, stock
from tests.object_store import BUCKET, ObjectStore

_FILES = {f"part-{number}.bin": bytes(512 * 1024) for number in range(10)}
_ROUNDS = 40


def measure_sealing(plan: Plan, *, say: Callable[[str], None]) -> tuple[list[BenchRecord], dict[str, Any]]:
    """Register a model of ten files and 5 MB again and again: with stock MLflow, and with ours."""
    began = perf_counter()
    store = ObjectStore()
    with alone(), cluster(LOCAL) as base:
        base.prepare(("stock", "plain", "ours"), Sizes(large=0))
        with _storing(store), _systems(base, store) as systems:
            source = store.write_model("0/run/artifacts/model", _FILES)
            taken: dict[str, list[float]] = {name: [] for name in systems}
            for system in systems.values():
                _post(system, "registered-models/create", {"name": "m"})
                _register(system, source)
            for _ in range(_ROUNDS):
                for name, system in systems.items():
                    taken[name].append(_register(system, source))
        settings = base.settings()
    records = [
        BenchRecord(f"register, {name}", 1, "stock" if name == "stock" else "ours", None,
                    percentile_ms(seconds, 0.5), percentile_ms(seconds, 0.99), 0,
                    more={"to_stock": median(seconds) / median(taken["stock"])})
        for name, seconds in taken.items()
    ]  # fmt: skip
    for record in records:
        say(f"{record.scenario:<28} {record.p50_ms:7.1f} ms, {record.more['to_stock']:.1f} x stock")
    return records, describe(plan=asdict(plan), seconds=perf_counter() - began, postgresql=settings)


@contextlib.contextmanager
def _storing(store: ObjectStore) -> Iterator[None]:
    store.start()
    try:
        yield
    finally:
        store.stop()


@contextlib.contextmanager
def _systems(base: PostgresCluster, store: ObjectStore) -> Iterator[Mapping[str, System]]:
    logs = LOCAL / "bench"
    with credentials_endpoint() as url, contributor(base.authority, audience=PUBLIC_URL) as program:
        environment = {
            **program.environment,
            "AWS_ENDPOINT_URL_S3": store.endpoint,
            "MLFLOW_AWS_ARTIFACT_ROOT": f"s3://{BUCKET}",
            "MLFLOW_AWS_WORKERS": "1",
        }
        seals = replace(program, environment=environment)
        plain = replace(program, environment={**environment, "MLFLOW_AWS_SEAL_AT": "promotion"})
        systems = {
            "stock": stock(base, logs),
            "sealing at promotion": ours(
                base, logs / "plain", credentials_url=url, identity=plain, database="plain"
            ),
            "sealing at registration": ours(base, logs / "ours", credentials_url=url, identity=seals),
        }
        with serving(*systems.values()):
            for each in systems.values():
                each.start()
            yield systems


def _register(system: System, source: str) -> float:
    began = perf_counter()
    made = _post(system, "model-versions/create", {"name": "m", "source": source})
    seconds = perf_counter() - began
    assert made["model_version"]["status"] == "READY", made
    return seconds


def _post(system: System, path: str, body: object) -> Any:
    connection = HTTPConnection("127.0.0.1", system.port, timeout=60)
    headers = {"Content-Type": "application/json", **system.headers}
    connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert response.status == 200, answer
    return answer
