"""Promotions by the server's own processes, which seal for real and may be killed at any moment."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.server.provenance.harness import verified
from tests.server.sealing.harness import Registry, is_ready

pytestmark = pytest.mark.slow

STAGE, ALIAS = "model-versions/transition-stage", "registered-models/alias"


def _new(registry: Registry, *, versions: int = 1) -> str:
    model = registry.new_model()
    for _ in range(versions):
        registry.register(model, registry.new_source())
    return model


def _chain(registry: Registry, model: str, *versions: str) -> list[dict[str, Any]]:
    """The entries of a model's chain; fails if it is not whole."""
    tagged = [registry.version(model, version) for version in versions]
    tagged.append(registry.get("registered-models/get", name=model)["registered_model"])
    tags = {tag["key"]: tag["value"] for each in tagged for tag in each.get("tags", ())}
    return verified({key: value for key, value in tags.items() if key.startswith("mlflow_aws.history.")})


@pytest.mark.parametrize("seal_at", ["registration", "promotion"])
def test_stock_clients_promote_in_one_call_and_the_entry_names_the_seal(own: Registry, seal_at: str) -> None:
    own.start(MLFLOW_AWS_SEAL_AT=seal_at)
    model = _new(own, versions=2)
    for version in "12":
        own.until(is_ready, model, version)
        assert (own.seal(model, version) is not None) == (seal_at == "registration")
    own.post(STAGE, {"name": model, "version": "1", "stage": "Production"})
    own.post(ALIAS, {"name": model, "version": "2", "alias": "champion"})
    chain = _chain(own, model, "1", "2")
    assert [entry["action"] for entry in chain] == ["stage", "alias"]
    assert [entry["seal"] for entry in chain] == [own.seal(model, version)["sha256"] for version in "12"]


def test_version_without_files_gets_no_stage_and_no_alias(own: Registry) -> None:
    own.start(MLFLOW_AWS_SEAL_AT="promotion")
    model = own.new_model()
    _, prefix = own.new_run()
    own.register(model, f"s3://{own.store.bucket}/{prefix}/model")
    for path, more in ((STAGE, {"stage": "Production"}), (ALIAS, {"alias": "champion"})):
        status, answer = own.send("POST", path, {"name": model, "version": "1", **more})
        assert status == 409, answer
        assert "no file under" in answer["message"]
    assert own.version(model)["current_stage"] == "None"
    own.post(STAGE, {"name": model, "version": "1", "stage": "Archived"})
    assert [entry["seal"] for entry in _chain(own, model, "1")] == [None]


def test_killed_server_leaves_no_change_without_its_entry(own: Registry) -> None:
    server = own.start()
    model = _new(own, versions=2)
    made = 0
    for delay in (0.03, 0.11, 0.2, 0.31):
        stop = threading.Event()

        def promote(server: int = server, stop: threading.Event = stop) -> int:
            done = 0
            for version in itertools.cycle("12"):
                if stop.is_set():
                    return done
                try:
                    own.post(ALIAS, {"name": model, "version": version, "alias": "champion"}, server=server)
                except OSError:
                    return done
                done += 1
            return done

        with ThreadPoolExecutor() as pool:
            promoting = [pool.submit(promote) for _ in range(3)]
            time.sleep(1 + delay)
            own.kill(server)
            stop.set()
            made += sum(each.result() for each in promoting)
        server = own.start()
        chain = _chain_of(own, model, server)
        held = own.send("GET", f"registered-models/alias?name={model}&alias=champion", server=server)[1]
        assert held["model_version"]["version"] == chain[-1]["version"]
        assert len(chain) >= made
        for before, entry in itertools.pairwise(chain):
            assert entry["previous"] == before["version"]
    assert made > 4


def _chain_of(registry: Registry, model: str, server: int) -> list[dict[str, Any]]:
    tags: dict[str, str] = {}
    for version in "12":
        path = f"model-versions/get?name={model}&version={version}"
        found = registry.send("GET", path, server=server)[1]["model_version"]
        tags |= {tag["key"]: tag["value"] for tag in found.get("tags", ())}
    return verified({key: value for key, value in tags.items() if key.startswith("mlflow_aws.history.")})


def test_two_processes_leave_one_chain(own: Registry) -> None:
    first, second = own.start(), own.start()
    model = _new(own, versions=2)

    def move(number: int) -> None:
        body = {"name": model, "version": "12"[number % 2], "alias": f"a{number % 5}"}
        own.post(ALIAS, body, server=(first, second)[number % 2])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(move, range(24)))
    assert [entry["number"] for entry in _chain(own, model, "1", "2")] == list(range(1, 25))
