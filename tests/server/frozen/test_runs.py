"""A run behind a version, and a run that has ended, stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import RdsLike
from tests.server.frozen.harness import ADMIN, AJAX, ALICE, NOTE, PREFIX, Caller, freeze
from tests.server.provenance.harness import Server

METRIC = {"key": "auc", "value": 0.99, "timestamp": 9, "step": 9}
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "a metric": ("runs/log-metric", METRIC),
    "metrics": ("runs/log-batch", {"metrics": [METRIC]}),
    "another param": ("runs/log-parameter", {"key": "more", "value": "1"}),
    "params": ("runs/log-batch", {"params": [{"key": "more", "value": "1"}]}),
    "a tag": ("runs/set-tag", {"key": "commit", "value": "def"}),
    "tags": ("runs/log-batch", {"tags": [{"key": "commit", "value": "def"}]}),
    "description and tag": (
        "runs/log-batch",
        {"tags": [{"key": NOTE, "value": "x"}, {"key": "commit", "value": "def"}]},
    ),
    "a tag's deletion": ("runs/delete-tag", {"key": "commit"}),
    "its name": ("runs/update", {"run_name": "second"}),
    "its name as a tag": ("runs/set-tag", {"key": "mlflow.runName", "value": "second"}),
    "its status": ("runs/update", {"status": "FAILED"}),
    "its reopening": ("runs/update", {"status": "RUNNING"}),
    "its end": ("runs/update", {"end_time": 99}),
    "its deletion": ("runs/delete", {}),
    "its restoration": ("runs/restore", {}),
    "a data set": (
        "runs/log-inputs",
        {"datasets": [{"dataset": {"name": "d", "digest": "e", "source_type": "x", "source": "y"}}]},
    ),
    "a model of old": (
        "runs/log-model",
        {
            "model_json": json.dumps(
                {"artifact_path": "m", "flavors": {}, "utc_time_created": "", "run_id": "r"}
            )
        },
    ),
    "an output": ("runs/outputs", {"models": [{"model_id": "m-" + "0" * 32, "step": 0}]}),
    "a trace": ("traces/link-to-run", {"trace_ids": ["tr-1"]}),
}


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            first + "".join(map(str.capitalize, rest)): _camel(each)
            for (first, *rest), each in ((name.split("_"), each) for name, each in value.items())
        }
    return [_camel(each) for each in value] if isinstance(value, list) else value


Sent = tuple[str, bytes]
SPELLINGS: dict[str, Callable[[str, str, dict[str, Any]], Sent]] = {
    "plain": lambda path, run, body: (f"{PREFIX}/{path}", _json({"run_id": run, **body})),
    "as the browser": lambda path, run, body: (f"{AJAX}/{path}", _json({"run_id": run, **body})),
    "in camel case": lambda path, run, body: (f"{PREFIX}/{path}", _json(_camel({"run_id": run, **body}))),
    "with the old name too": lambda path, run, body: (
        f"{PREFIX}/{path}",
        _json({"run_uuid": run, "run_id": run, **body}),
    ),
    "by the old name alone": lambda path, run, body: (f"{PREFIX}/{path}", _json({"run_uuid": run, **body})),
    "hidden by an open run": lambda path, run, body: (
        f"{PREFIX}/{path}",
        _json({"run_uuid": "0" * 32, **body, "run_id": run}),
    ),
    "named twice": lambda path, run, body: (
        f"{PREFIX}/{path}",
        b'{"run_id": "%s", ' % (b"0" * 32) + _json({"run_id": run, **body})[1:],
    ),
    "JSON in JSON": lambda path, run, body: (
        f"{PREFIX}/{path}",
        json.dumps(_json({"run_id": run, **body}).decode()).encode(),
    ),
    "in UTF-16": lambda path, run, body: (
        f"{PREFIX}/{path}",
        json.dumps({"run_id": run, **body}).encode("utf-16"),
    ),
    "escaped": lambda path, run, body: (
        f"{PREFIX}/{path}",
        _json({"run_id": run, **body}).replace(b"run_id", rb"run\u005fid"),
    ),
    "with an unknown field": lambda path, run, body: (
        f"{PREFIX}/{path}",
        _json({"run_id": run, "nonsense": {"run_id": "x"}, **body}),
    ),
}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


@pytest.fixture(scope="module")
def frozen(server: Server) -> str:
    """Alice's run, ended, with a registered version."""
    alice = Caller(server, ALICE)
    run = alice.new_run(ended=True)
    alice.register(run=run)
    return run


@pytest.fixture(scope="module")
def promoted(server: Server) -> str:
    """Alice's run, still running, with a version in Production."""
    alice = Caller(server, ALICE)
    run = alice.new_run()
    Caller(server, ADMIN).promote(alice.register(run=run), "Production")
    return run


@pytest.fixture(scope="module")
def ended(server: Server) -> str:
    """Alice's run, ended, without a version."""
    return Caller(server, ALICE).new_run(ended=True)


@pytest.mark.parametrize(
    ("which", "change", "spelling"),
    [
        *((which, change, "plain") for which in ("frozen", "promoted", "ended") for change in CHANGES),
        *(
            ("frozen", change, spelling)
            for change in CHANGES
            for spelling in SPELLINGS
            if spelling != "plain"
        ),
    ],
)
def test_a_contributor_changes_nothing_of_it_in_any_spelling(
    request: pytest.FixtureRequest, alice: Caller, bob: Caller, which: str, change: str, spelling: str
) -> None:
    run = request.getfixturevalue(which)
    before = alice.run(run)
    path, raw = SPELLINGS[spelling](CHANGES[change][0], run, CHANGES[change][1])
    answers = [bob.send("POST", path, raw=raw)]
    # The run's author is no exception, but may end a run that is still running.
    if which != "ended" and (which, change) != ("promoted", "its status"):
        answers.append(alice.send("POST", path, raw=raw))
    assert [(answer.status, answer.code) for answer in answers] == [(403, "PERMISSION_DENIED")] * len(answers)
    assert alice.run(run) == before


def test_the_refusal_names_version_model_roles_and_what_is_free(alice: Caller, bob: Caller) -> None:
    run = alice.new_run(ended=True)
    name = alice.register(run=run)
    message = bob.send("POST", "runs/delete", {"run_id": run}).json["message"]
    assert message == (
        f"The run {run} is frozen: version 1 of the model {name!r} rests on it. It can be changed or deleted "
        "only with the role approver or admin. Its description (tag 'mlflow.note.content') is free."
    )
    run = alice.new_run(ended=True)
    message = bob.send("POST", "runs/delete", {"run_id": run}).json["message"]
    assert message == (
        f"The run {run} has ended, and {ALICE.name} created it: it can be changed or deleted only by its "
        "author, or with the role approver or admin. Its description (tag 'mlflow.note.content') is free."
    )


def test_the_first_version_that_froze_a_run_is_named(alice: Caller, approver: Caller, bob: Caller) -> None:
    run = alice.new_run()
    alice.register(run=run)
    name = alice.register(run=run)
    alice.register(run=run)
    approver.promote(name)
    message = bob.send("POST", "runs/set-tag", {"run_id": run, "key": "k", "value": "v"}).json["message"]
    assert f"version 1 of the model {name!r} rests on it, and was promoted" in message


@pytest.mark.parametrize("change", [name for name in CHANGES if name not in ("a trace", "a model of old")])
def test_whoever_approves_changes_it(alice: Caller, approver: Caller, change: str) -> None:
    run = alice.new_run(ended=True)
    approver.promote(alice.register(run=run), "Production")
    path, body = CHANGES[change]
    approver.post(path, {"run_id": run, **body})


@pytest.mark.parametrize("which", ["frozen", "promoted", "ended"])
def test_its_description_is_free(
    request: pytest.FixtureRequest, alice: Caller, bob: Caller, which: str
) -> None:
    run = request.getfixturevalue(which)
    bob.post("runs/set-tag", {"run_id": run, "key": NOTE, "value": "looked at"})
    assert {"key": NOTE, "value": "looked at"} in alice.run(run)["data"]["tags"]
    bob.post("runs/log-batch", {"run_id": run, "tags": [{"key": NOTE, "value": "and again"}]})
    bob.post("runs/delete-tag", {"run_id": run, "key": NOTE})
    assert NOTE not in str(alice.run(run)["data"]["tags"])


def test_an_open_run_is_written_by_everybody_and_past_stock(
    server: Server, alice: Caller, bob: Caller
) -> None:
    run = alice.new_run()
    alice.register(run=run)
    server.served.clear()
    for path in ("runs/log-metric", "runs/log-batch", "runs/log-parameter", "runs/set-tag", "runs/update"):
        for change_path, body in CHANGES.values():
            if change_path == path and "mlflow.runName" not in str(body) and "status" not in body:
                bob.post(path, {"run_id": run, **body})
    assert server.served == []


def test_the_author_resumes_an_ended_run_which_is_then_fast_again(server: Server, alice: Caller) -> None:
    run = alice.new_run(ended=True)
    alice.post("runs/log-metric", {"run_id": run, **METRIC})
    alice.post("runs/update", {"run_id": run, "status": "RUNNING"})
    server.served.clear()
    alice.post("runs/log-metric", {"run_id": run, **METRIC, "step": 10})
    assert server.served == []
    alice.end(run)
    alice.post("runs/delete", {"run_id": run})
    alice.post("runs/restore", {"run_id": run})


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_every_end_is_an_end(alice: Caller, bob: Caller, status: str) -> None:
    run = alice.new_run()
    alice.end(run, status)
    assert bob.send("POST", "runs/log-metric", {"run_id": run, **METRIC}).status == 403


def test_an_ended_run_without_a_recorded_author_is_left_to_whoever_approves(
    rds: RdsLike, server: Server, alice: Caller, approver: Caller
) -> None:
    run = alice.new_run(ended=True)
    rds.administer(
        f"DELETE FROM tags WHERE run_uuid = '{run}' AND key = 'mlflow_aws.principal'",
        database=server.database,
    )
    refused = alice.send("POST", "runs/log-metric", {"run_id": run, **METRIC})
    assert (refused.status, "it has no recorded author" in refused.json["message"]) == (403, True)
    approver.post("runs/log-metric", {"run_id": run, **METRIC})


def test_with_the_setting_everybody_changes_an_ended_run_but_none_behind_a_version(
    server: Server, alice: Caller, bob: Caller, frozen: str
) -> None:
    lenient = Caller(freeze(server.another(), ended_runs_by_author=False), bob.principal)
    lenient.post("runs/log-metric", {"run_id": alice.new_run(ended=True), **METRIC})
    assert lenient.send("POST", "runs/log-metric", {"run_id": frozen, **METRIC}).status == 403


def test_a_run_whose_version_is_promoted_while_it_runs_is_ended_by_its_author(
    alice: Caller, bob: Caller, approver: Caller
) -> None:
    run = alice.new_run()
    approver.promote(alice.register(run=run))
    end = {"run_id": run, "run_uuid": run, "status": "FINISHED", "end_time": 2}
    assert bob.send("POST", "runs/update", end).status == 403
    assert alice.send("POST", "runs/update", {**end, "run_name": "second"}).status == 403
    assert alice.send("POST", "runs/update", {**end, "runName": "second"}).status == 403
    alice.post("runs/update", end)
    assert alice.run(run)["info"]["status"] == "FINISHED"
    assert alice.send("POST", "runs/update", end).status == 403


def test_an_alias_freezes_even_after_it_is_removed(alice: Caller, approver: Caller) -> None:
    run = alice.new_run()
    name = alice.register(run=run)
    alice.post("runs/log-metric", {"run_id": run, **METRIC})
    approver.post("registered-models/alias", {"name": name, "alias": "champion", "version": "1"})
    assert alice.send("POST", "runs/log-metric", {"run_id": run, **METRIC}).status == 403
    approver.send("DELETE", "registered-models/alias", {"name": name, "alias": "champion"})
    assert alice.send("POST", "runs/log-metric", {"run_id": run, **METRIC}).status == 403


@pytest.mark.parametrize(
    "before_provenance",
    [
        "UPDATE model_versions SET current_stage = 'Archived' WHERE name = '{name}'",
        "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('{name}', 'champion', 1)",
    ],
)
def test_a_promotion_from_before_the_history_freezes(
    rds: RdsLike, server: Server, alice: Caller, before_provenance: str
) -> None:
    run = alice.new_run()
    name = alice.register(run=run)
    rds.administer(before_provenance.format(name=name), database=server.database)
    assert alice.send("POST", "runs/log-metric", {"run_id": run, **METRIC}).status == 403


def test_a_run_is_free_again_when_its_version_is_deleted(
    alice: Caller, approver: Caller, frozen: str
) -> None:
    run = alice.new_run(ended=True)
    name = alice.register(run=run)
    assert alice.send("POST", "runs/log-metric", {"run_id": run, **METRIC}).status == 403
    assert approver.send("DELETE", "model-versions/delete", {"name": name, "version": "1"}).status == 200
    alice.post("runs/log-metric", {"run_id": run, **METRIC})
    assert alice.send("POST", "runs/log-metric", {"run_id": frozen, **METRIC}).status == 403


def test_nothing_but_the_run_itself_is_frozen(alice: Caller, bob: Caller, frozen: str) -> None:
    child = bob.post(
        "runs/create",
        {"experiment_id": "0", "start_time": 1, "tags": [{"key": "mlflow.parentRunId", "value": frozen}]},
    )
    bob.post("runs/log-metric", {"run_id": child["run"]["info"]["run_id"], **METRIC})
    assert alice.send("POST", "runs/log-metric", {"run_id": "0" * 32, **METRIC}).status == 404
