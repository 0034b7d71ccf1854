"""A server that seals, as it is deployed: its own process, PostgreSQL with TLS, and the session's S3."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from local.parts.ports import free_port
from tests.object_store import STORE, ObjectStore
from tests.server.conftest import Deployment, Process, request, wait_until_ready

PENDING = "PENDING_REGISTRATION"
API = "/api/2.0/mlflow/"
FILES = {"MLmodel": b"flavors: {}\n", "data/model.pkl": b"x" * 100_000}


@dataclass
class Registry:
    """MLflow's registry on one database, served by any number of servers."""

    deployment: Deployment
    store: ObjectStore = field(default_factory=lambda: STORE)
    _servers: list[Process] = field(default_factory=list)
    _ports: list[int] = field(default_factory=list)

    def start(self, **settings: str) -> int:
        """Start one more server and return its number; requests go to the latest, if none is named."""
        port = free_port()
        process = self.deployment.start("serve", port=port, **settings)
        self._servers.append(process)
        self._ports.append(port)
        wait_until_ready(process, port)
        return len(self._ports) - 1

    def kill(self, server: int = -1) -> None:
        """End a server at once, whatever it is doing."""
        os.kill(self._servers[server].pid, signal.SIGKILL)
        self._servers[server].wait(10)

    def close(self) -> None:
        """End every server."""
        for server in self._servers:
            if server.poll() is None:
                server.kill()
                server.wait(10)

    def output(self) -> str:
        """What the latest server has written."""
        return self._servers[-1].output()

    def sealings(self, outcome: str) -> list[dict[str, Any]]:
        """The lines of every server's log about sealings that ended so."""
        lines = (json.loads(line) for server in self._servers for line in server.output().splitlines())
        return [line for line in lines if line.get("seal") == outcome]

    def resident_bytes(self) -> int:
        """The memory of the latest server's process."""
        status = Path(f"/proc/{self._servers[-1].pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024

    def send(
        self, method: str, path: str, body: Any = None, *, role: str = "admin", server: int = -1
    ) -> tuple[int, Any]:
        """One request; returns the status and the answer."""
        status, answer = request(self._ports[server], method, API + path, body, role=role)
        return status, json.loads(answer)

    def post(self, path: str, body: Any, **how: Any) -> Any:
        """POST, and expect success."""
        status, answer = self.send("POST", path, body, **how)
        assert status == 200, answer
        return answer

    def get(self, path: str, **query: str) -> Any:
        """GET, and expect success."""
        status, answer = self.send("GET", f"{path}?{urlencode(query)}")
        assert status == 200, answer
        return answer

    def new_run(self) -> tuple[str, str]:
        """A run's id, and the prefix of its artifacts."""
        info = self.post("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]
        return info["run_id"], str(info["artifact_uri"]).removeprefix(f"s3://{self.store.bucket}/")

    def new_source(self, files: Mapping[str, bytes] = FILES) -> str:
        """The URI of a run's artifacts with a model in them."""
        _, prefix = self.new_run()
        return self.store.write_model(f"{prefix}/model", files)

    def new_model(self, name: str | None = None) -> str:
        """Make a registered model; returns its name."""
        name = name or f"model-{secrets.token_hex(4)}"
        self.post("registered-models/create", {"name": name})
        return name

    def register(self, model: str, source: str, **fields: Any) -> Any:
        """Register a version; returns what the answer says of it."""
        body = {"name": model, "source": source, **fields}
        return self.post("model-versions/create", body)["model_version"]

    def register_and_forget(self, model: str, source: str) -> None:
        """Register a version with a server that will not live to answer."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.register(model, source)

    def version(self, model: str, version: str = "1") -> Any:
        """A version, as MLflow shows it now."""
        return self.get("model-versions/get", name=model, version=version)["model_version"]

    def location(self, model: str, version: str = "1") -> str:
        """Where clients load a version from."""
        answer = self.get("model-versions/get-download-uri", name=model, version=version)
        return str(answer["artifact_uri"])

    def seal(self, model: str, version: str = "1") -> Any:
        """The seal that a version's tag holds, or None."""
        tags = {tag["key"]: tag["value"] for tag in self.version(model, version).get("tags", ())}
        return json.loads(tags["mlflow_aws.seal"]) if "mlflow_aws.seal" in tags else None

    def until(
        self, holds: Callable[[Any], bool], model: str, version: str = "1", *, seconds: float = 60
    ) -> Any:
        """Wait until a version is in a state; returns it."""
        deadline = time.monotonic() + seconds
        while not holds(found := self.version(model, version)):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        return found

    def until_sealed(self, model: str) -> None:
        """Wait until version 1 has a seal."""
        self.until(lambda _: self.seal(model) is not None, model)

    def sealed_root(self, model: str) -> str:
        """What the keys of all sealed copies of a model begin with."""
        return f"{self.store.root}/sealed/{model}/".removeprefix(f"s3://{self.store.bucket}/")

    def sealed(self, location: str) -> dict[str, bytes]:
        """The files of a sealed copy."""
        assert location.startswith(f"{self.store.root}/sealed/")
        return self.store.read(location.removeprefix(f"s3://{self.store.bucket}/"))

    def objects(self, prefix: str) -> dict[str, int]:
        """How many versions each object has, and marker of deletion, whose key begins so."""
        found: dict[str, int] = {}
        pages = self.store.client.get_paginator("list_object_versions").paginate(
            Bucket=self.store.bucket, Prefix=prefix
        )
        for page in pages:
            for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                found[each["Key"]] = found.get(each["Key"], 0) + 1
        return found

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """One statement in the database, past the server."""
        return self.deployment.rds.administer(statement, database=self.deployment.database)


def is_ready(version: Any) -> bool:
    """Whether a version, as MLflow shows it, is READY."""
    return bool(version["status"] == "READY")


@contextlib.contextmanager
def registry(deployment: Deployment) -> Iterator[Registry]:
    """A registry without a server yet."""
    made = Registry(deployment)
    try:
        yield made
    finally:
        made.close()
