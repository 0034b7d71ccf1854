"""The server as dev's task runs it: its memory, its workers, its database connections."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.parts.ports import free_port
from tests.attacks_on_load.memory_limit import MemoryLimit, memory_limit
from tests.roles import server_roles
from tests.server.conftest import (
    AUDIENCE,
    SERVER_PYTHON,
    Deployment,
    Identity,
    Process,
    deployment,
    issuers,
    request,
    wait_until_ready,
)

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.object_store import ObjectStore
    from tests.server.conftest import Migration

PROJECT = Path(__file__).parents[2]
_ACCOUNT = "arn:aws:iam::123456789012:role/"
_LARGE = 100 * 1024 * 1024
_ROLES = {
    "viewer": {"iam_roles": [f"{_ACCOUNT}viewers/*"]},
    "contributor": {"iam_roles": [f"{_ACCOUNT}contributors/*"]},
    "admin": {"iam_roles": [f"{_ACCOUNT}admin"]},
}


@contextlib.contextmanager
def _ready(program: str, argument: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A program of this folder that has said that it is ready; it is killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.attacks_on_load.{program}", argument],
        cwd=PROJECT,
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@dataclass
class Site:
    """The server, its limit, and what stands in it."""

    process: Process
    port: int
    limit: MemoryLimit
    deployed: Deployment
    identity: Identity
    experiment: str
    run: str
    artifact: str

    def token(self, role: str) -> str:
        """A token of the IAM role that has this path and name."""
        return self.identity.sts.token(subject=_ACCOUNT + role, audience=AUDIENCE, seconds=3600)

    def call(self, method: str, path: str, body: object = None, *, role: str) -> dict[str, Any]:
        """A call that succeeds."""
        headers = {"Authorization": f"Bearer {self.token(role)}"}
        status, answer = request(
            self.port, method, path, body, host=f"127.0.0.1:{self.port}", headers=headers, role=None
        )
        assert status == 200, answer
        found: dict[str, Any] = json.loads(answer)
        return found

    def stored(self, run: str, *keys: str) -> dict[str, int]:
        """How many points of these metrics the database has."""
        rows = self.deployed.rds.administer(
            f"SELECT key, count(*) FROM metrics WHERE run_uuid = '{run}' GROUP BY key",
            database=self.deployed.database,
        )
        found = {str(key): count for key, count in rows if isinstance(count, int)}
        return {key: found.get(key, 0) for key in keys}

    @contextlib.contextmanager
    def training(self, name: str) -> Iterator[subprocess.Popen[str]]:
        """A contributor's training loop, in a process of its own."""
        with _ready(
            "training",
            self.experiment,
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{self.port}",
            MLFLOW_TRACKING_TOKEN=self.token(f"contributors/{name}"),
        ) as process:
            yield process

    @contextlib.contextmanager
    def attackers(self, attackers: dict[str, list[str]]) -> Iterator[subprocess.Popen[str]]:
        """These callers, each with its kinds of attack, ready to begin."""
        order = {
            "port": self.port,
            "experiment": self.experiment,
            "run": self.run,
            "artifact": self.artifact,
            "attackers": [(self.token(role), kinds) for role, kinds in attackers.items()],
        }
        with _ready("attackers", json.dumps(order)) as process:
            yield process

    @contextlib.contextmanager
    def health(self) -> Iterator[list[float]]:
        """How long `/health` takes, asked again and again; infinite for no or another answer."""
        seconds: list[float] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.wait(0.2):
                began = time.perf_counter()
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                try:
                    connection.request("GET", "/health")
                    right = connection.getresponse().status == 200
                except (OSError, http.client.HTTPException):
                    right = False
                finally:
                    connection.close()
                seconds.append(time.perf_counter() - began if right else float("inf"))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield seconds
        finally:
            stop.set()
            asking.join()


@pytest.fixture(scope="module")
def site(
    rds: RdsLike,
    migration: Migration,
    object_store: ObjectStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """One server with the limits of dev, a large artifact, and a trace whose tag invites slow patterns."""
    dev = tomllib.loads((PROJECT / "config" / "dev.toml").read_text())["server"]
    with (
        issuers(tmp_path_factory.mktemp("issuers")) as identity,
        deployment(rds, identity, copy_of=migration) as deployed,
        memory_limit(dev["memory_mib"] * 1024 * 1024) as limit,
    ):
        port = free_port()
        environ = {
            **deployed.environ,
            "MLFLOW_AWS_ROLES": server_roles(_ROLES),
            "MLFLOW_AWS_PORT": str(port),
            "MLFLOW_AWS_PUBLIC_URL": f"https://127.0.0.1:{port}",
            "MLFLOW_AWS_WORKERS": str(dev.get("workers", 1)),
            "MLFLOW_AWS_DATABASE_MAX_CONNECTIONS": str(dev["database_connections"]),
        }
        process = Process(limit.within([SERVER_PYTHON, "-m", "mlflow_aws_server", "serve"]), env=environ)
        try:
            wait_until_ready(process, port)
            site = Site(process, port, limit, deployed, identity, "", "", "large.bin")
            _furnish(site, object_store)
            with limit.watching(process.pid):
                yield site
        finally:
            process.kill()
            process.wait()


def _furnish(site: Site, store: ObjectStore) -> None:
    api = "/api/2.0/mlflow"
    by = "contributors/furnisher"
    site.experiment = site.call("POST", f"{api}/experiments/create", {"name": "attacked"}, role=by)[
        "experiment_id"
    ]
    run = site.call("POST", f"{api}/runs/create", {"experiment_id": site.experiment}, role=by)["run"]["info"]
    site.run = run["run_id"]
    _, _, bucket, prefix = run["artifact_uri"].split("/", 3)
    store.client.put_object(Bucket=bucket, Key=f"{prefix}/{site.artifact}", Body=bytes(_LARGE))
    trace = {
        "experiment_id": site.experiment,
        "timestamp_ms": 1,
        "execution_time_ms": 1,
        "status": "OK",
        "request_metadata": [],
        "tags": [{"key": "z", "value": "a" * 120}],
    }
    site.call("POST", f"{api}/traces", trace, role=by)
