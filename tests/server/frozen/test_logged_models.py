"""A logged model behind a version stays as it is, and so do its metrics."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import RdsLike
from tests.server.frozen.harness import ADMIN, AJAX, ALICE, NOTE, PREFIX, Caller
from tests.server.provenance.harness import Server

TAGS = {"tags": [{"key": "commit", "value": "def"}]}
CHANGES: list[tuple[str, str, object]] = [
    ("PATCH", "logged-models/{model}", {"model_id": "{model}", "status": 3}),
    ("PATCH", "logged-models/{other}", {"model_id": "{model}", "status": 3}),
    ("PATCH", "logged-models/{other}", {"modelId": "{model}", "status": 3}),
    ("PATCH", "logged-models/{model}", {"model_id": "{other}", "status": 3}),
    ("DELETE", "logged-models/{model}", None),
    ("delete", "logged-models/{model}", None),
    ("POST", "logged-models/{model}/params", {"params": [{"key": "more", "value": "1"}]}),
    ("PATCH", "logged-models/{model}/tags", TAGS),
    ("PATCH", "logged-models/{model}/tags", {"tags": [{"key": NOTE, "value": "x"}, *TAGS["tags"]]}),
    ("DELETE", "logged-models/{model}/tags/commit", None),
    ("DELETE", "logged-models/{model}/tags/mlflow.modelVersions", None),
    ("POST", "runs/outputs", {"run_id": "{open}", "models": [{"model_id": "{model}", "step": 0}]}),
    ("POST", "runs/outputs", {"runId": "{open}", "models": [{"modelId": "{model}", "step": 0}]}),
]


@pytest.fixture(scope="module")
def of_version(server: Server) -> str:
    """Alice's logged model, of an ended run, that a version was registered from."""
    alice = Caller(server, ALICE)
    run = alice.new_run()
    model = alice.new_logged_model(run)
    alice.register(run=run, logged_model=model)
    alice.end(run)
    return model


@pytest.fixture(scope="module")
def of_open_run(server: Server) -> str:
    """Alice's logged model, of a run that still runs, with a version in Production."""
    alice = Caller(server, ALICE)
    run = alice.new_run()
    model = alice.new_logged_model(run)
    Caller(server, ADMIN).promote(alice.register(run=run, logged_model=model), "Production")
    return model


@pytest.fixture(scope="module")
def of_no_run(server: Server) -> str:
    """Alice's logged model without a run, that a version was registered from."""
    alice = Caller(server, ALICE)
    model = alice.new_logged_model()
    alice.register(logged_model=model)
    return model


@pytest.fixture(scope="module")
def of_the_run(server: Server) -> str:
    """Alice's logged model, of a run whose other model is a version."""
    alice = Caller(server, ALICE)
    run = alice.new_run()
    model = alice.new_logged_model(run)
    alice.register(run=run)
    alice.end(run)
    return model


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, names) for each in value]
    return value.format(**names) if isinstance(value, str) else value


@pytest.mark.parametrize("prefix", [PREFIX, AJAX])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change[0]} {change[1]}")
@pytest.mark.parametrize("which", ["of_version", "of_open_run", "of_no_run", "of_the_run"])
def test_a_contributor_changes_nothing_of_it(
    request: pytest.FixtureRequest,
    alice: Caller,
    bob: Caller,
    which: str,
    change: tuple[str, str, object],
    prefix: str,
) -> None:
    model = request.getfixturevalue(which)
    names = {"model": model, "other": bob.new_logged_model(), "open": bob.new_run()}
    before = alice.logged_model(model)
    method, path, body = change
    for caller in (alice, bob):
        answer = caller.send(method, f"{prefix}/{path.format(**names)}", _filled(body, names))
        assert (answer.status, answer.code) == (403, "PERMISSION_DENIED")
    assert alice.logged_model(model) == before


def test_whoever_approves_changes_it(alice: Caller, approver: Caller) -> None:
    model = alice.new_logged_model()
    alice.register(logged_model=model)
    assert approver.send("PATCH", f"logged-models/{model}/tags", TAGS).status == 200
    assert approver.send("DELETE", f"logged-models/{model}").status == 200


def test_its_description_is_free(bob: Caller, of_version: str) -> None:
    tags = {"tags": [{"key": NOTE, "value": "looked at"}]}
    assert bob.send("PATCH", f"logged-models/{of_version}/tags", tags).status == 200
    assert NOTE in str(bob.logged_model(of_version)["info"]["tags"])
    assert bob.send("DELETE", f"logged-models/{of_version}/tags/{NOTE}").status == 200


def test_one_that_no_version_rests_on_is_free(alice: Caller, bob: Caller) -> None:
    without, registered = alice.new_logged_model(), alice.new_logged_model()
    alice.register(logged_model=registered)
    assert bob.send("PATCH", f"logged-models/{without}/tags", TAGS).status == 200
    # A version without a run freezes no model without a run but its own.
    assert bob.send("PATCH", f"logged-models/{registered}/tags", TAGS).status == 403


def test_one_of_an_open_run_is_free_until_its_version_is_promoted(alice: Caller, approver: Caller) -> None:
    run = alice.new_run()
    model = alice.new_logged_model(run)
    name = alice.register(run=run, logged_model=model)
    assert alice.send("PATCH", f"logged-models/{model}/tags", TAGS).status == 200
    approver.promote(name)
    assert alice.send("PATCH", f"logged-models/{model}/tags", TAGS).status == 403


def test_a_run_behind_a_version_gets_no_new_logged_model(alice: Caller) -> None:
    run = alice.new_run(ended=True)
    alice.new_logged_model(run)
    alice.register(run=run)
    for name in ("source_run_id", "sourceRunId"):
        assert alice.send("POST", "logged-models", {"experiment_id": "0", name: run}).status == 403


def _measured(rds: RdsLike, server: Server, model: str) -> list[Any]:
    return rds.administer(
        f"SELECT metric_name, metric_value FROM logged_model_metrics WHERE model_id = '{model}' ORDER BY 1",
        database=server.database,
    )


@pytest.mark.parametrize("name", ["model_id", "modelId"])
@pytest.mark.parametrize("which", ["of_version", "of_open_run", "of_no_run", "of_the_run"])
def test_what_another_run_measures_of_it_stays_with_that_run(
    request: pytest.FixtureRequest, rds: RdsLike, server: Server, bob: Caller, which: str, name: str
) -> None:
    model, free = request.getfixturevalue(which), bob.new_logged_model()
    run = bob.new_run()
    point = {"timestamp": 1, "step": 0, "dataset_name": "d", "dataset_digest": "e"}
    bob.post("runs/log-metric", {"run_id": run, "key": "one", "value": 0.1, name: model, **point})
    metrics = [
        {"key": "two", "value": 0.2, name: model, **point},
        {"key": "three", "value": 0.3, name: free, **point},
        {"key": "four", "value": 0.4, "timestamp": 1},
    ]
    bob.post("runs/log-batch", {"run_id": run, "metrics": metrics})
    assert {m["key"]: m["value"] for m in bob.run(run)["data"]["metrics"]} == {
        "auc": 0.5, "one": 0.1, "two": 0.2, "three": 0.3, "four": 0.4
    }  # fmt: skip
    assert _measured(rds, server, model) == []
    assert _measured(rds, server, free) == [("three", 0.3)]


def test_what_whoever_approves_measures_of_it_is_attached(
    rds: RdsLike, server: Server, alice: Caller, approver: Caller
) -> None:
    model = alice.new_logged_model()
    alice.register(logged_model=model)
    metric = {"key": "one", "value": 0.1, "timestamp": 1, "model_id": model}
    approver.post("runs/log-batch", {"run_id": approver.new_run(), "metrics": [metric]})
    assert _measured(rds, server, model) == [("one", 0.1)]


def test_a_model_of_the_open_run_itself_is_measured_past_stock(
    rds: RdsLike, server: Server, alice: Caller
) -> None:
    run = alice.new_run()
    model = alice.new_logged_model(run)
    alice.register(run=run, logged_model=model)
    server.served.clear()
    metric = {"key": "one", "value": 0.1, "timestamp": 1, "model_id": model}
    alice.post("runs/log-batch", {"run_id": run, "metrics": [metric]})
    assert server.served == []
    assert _measured(rds, server, model) == [("one", 0.1)]
