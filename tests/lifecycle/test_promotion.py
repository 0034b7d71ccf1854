"""Promotion, rollback and archiving at a real server, each under its own identity."""

from __future__ import annotations

import http.server
import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from model_lifecycle import (
    ConflictError,
    LifecycleError,
    LoadedPolicy,
    NotPermittedError,
    RefusedByPolicyError,
    Registry,
    archive,
    promote,
    rollback,
)
from model_lifecycle.evidence import TAG
from model_lifecycle.history import Event
from model_lifecycle.registry import Model

from tests.lifecycle.conftest import Registered


def _events(model: Registered, number: str) -> list[Event]:
    """The moves of a version between stages, as the server recorded them."""
    with model.site.bearer("viewer"):
        history = model.site.registry().model(model.name).history()
    assert history.problems == ()
    return [event for event in history.of(number) if event.action == "stage"]


def test_a_version_goes_through_staging_to_production_and_its_alias_with_it(model: Registered) -> None:
    number = model.version()
    with model.site.bearer("approver"):
        promote(model.site.lifecycle(), model.name, number, to="staging")
    assert (model.stages(), model.aliases()) == ({number: "Staging"}, {"challenger": number})
    with model.site.bearer("approver"):
        promote(model.site.lifecycle(), model.name, number, to="production")
    assert (model.stages(), model.aliases()) == ({number: "Production"}, {"champion": number})


def test_who_was_live_before_is_archived(model: Registered) -> None:
    first, second = model.version(), model.version(0.85)
    model.live(first, second)
    assert model.stages() == {first: "Archived", second: "Production"}
    assert model.aliases() == {"champion": second}


def test_a_worse_version_is_refused_with_every_rule_and_nothing_changes(model: Registered) -> None:
    good, worse = model.version(0.9), model.version(0.5)
    model.live(good)
    before = model.stages(), model.aliases()
    with model.site.bearer("approver"), pytest.raises(RefusedByPolicyError) as refused:
        promote(model.site.lifecycle(), model.name, worse, to="production")
    broken = {each.rule: (each.observed, each.required) for each in refused.value.findings if not each.passed}
    assert broken == {
        "comes from": (f"version {worse} is in stage None", "stage Staging"),
        "auc minimum": ("0.5", ">= 0.7"),
        "auc against current": ("0.5", f">= 0.89 (version {good}: 0.9, may be 0.01 worse)"),
    }
    assert (model.stages(), model.aliases()) == before


def test_a_contributors_promotion_is_refused_by_the_server(model: Registered) -> None:
    number = model.version()
    with model.site.bearer("contributor"), pytest.raises(NotPermittedError, match="approver"):
        promote(model.site.lifecycle(), model.name, number, to="staging")
    assert (model.stages(), model.aliases()) == ({number: "None"}, {})


def test_the_decision_says_what_was_compared_under_which_policy_and_who_decided(model: Registered) -> None:
    first, second = model.version(0.8), model.version(0.85)
    model.live(first)
    run = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://github.example.com",
        "GITHUB_REPOSITORY": "team/models",
        "GITHUB_RUN_ID": "42",
    }
    with model.site.bearer("approver"):
        promote(model.site.lifecycle(), model.name, second, to="staging")
        outcome = promote(model.site.lifecycle(**run), model.name, second, to="production")
        seal = json.loads(model.site.client().get_model_version(model.name, second).tags[TAG])
    recorded = _events(model, second)[-1]
    made = recorded.decision
    assert made is not None
    assert (made, recorded.number, recorded.seal) == (outcome.decision, outcome.entry, outcome.seal)
    assert recorded.seal == seal["sha256"]
    assert recorded.principal == model.site.identity.arn("approver")
    assert made.policy.sha256 == LoadedPolicy.load(model.site.policy).sha256
    assert (made.compared_with, made.figures) == (first, {"auc": 0.85})
    assert made.ci == {"url": "https://github.example.com/team/models/actions/runs/42"}
    figures = next(rule.figures for rule in made.rules if rule.rule == "auc against current")
    assert (figures["candidate"], figures["current"], figures["current_version"]) == (0.85, 0.8, first)


def test_nothing_is_written_that_a_client_could_write(model: Registered) -> None:
    number = model.version()
    model.live(number)
    with model.site.bearer("viewer"):
        tags = model.site.client().get_model_version(model.name, number).tags
    assert all(key.startswith("mlflow_aws.") for key in tags)


def test_a_figure_that_changed_after_it_was_judged_is_a_conflict(
    model: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, run = model.version(), ""
    run = model.run_id(number)
    move = Registry.move

    def change_and_move(*arguments: Any, **more: Any) -> None:
        with model.site.bearer("contributor"):
            model.site.client().log_metric(run, "auc", 0.99)
        move(*arguments, **more)

    monkeypatch.setattr(Registry, "move", change_and_move)
    with model.site.bearer("approver"), pytest.raises(ConflictError, match=r"0\.8 for the metric 'auc'"):
        promote(model.site.lifecycle(), model.name, number, to="staging")
    assert (model.stages(), model.aliases()) == ({number: "None"}, {})


def test_a_second_run_changes_nothing(model: Registered) -> None:
    number = model.version()
    model.live(number)
    with model.site.bearer("approver"):
        before = model.site.registry().model(model.name).version(number).tags
        outcome = promote(model.site.lifecycle(), model.name, number, to="production")
        after = model.site.registry().model(model.name).version(number).tags
    assert not outcome.changed
    assert after == before


def test_a_run_that_was_cut_short_is_completed_by_the_next(model: Registered) -> None:
    number = model.version()
    with model.site.bearer("approver"):
        promote(model.site.lifecycle(), model.name, number, to="staging")
        model.site.registry().move(model.name, number, "Production", archive_existing=True, holder="")
        outcome = promote(model.site.lifecycle(), model.name, number, to="production")
    assert not outcome.changed
    assert model.aliases() == {"champion": number}


def test_a_move_whose_answer_was_lost_is_not_taken_for_somebody_elses(
    model: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's client sends a request again by itself; the second finds the place taken, by us."""
    number = model.version()
    move = Registry.move

    def move_twice(*arguments: Any, **more: Any) -> None:
        move(*arguments, **more)
        move(*arguments, **more)

    monkeypatch.setattr(Registry, "move", move_twice)
    with model.site.bearer("approver"):
        assert promote(model.site.lifecycle(), model.name, number, to="staging").changed
    assert [event.stage for event in _events(model, number)] == ["Staging"]


def test_a_dry_run_judges_and_changes_nothing(model: Registered) -> None:
    number = model.version()
    with model.site.bearer("approver"):
        outcome = promote(model.site.lifecycle(), model.name, number, to="staging", dry_run=True)
    assert all(finding.passed for finding in outcome.findings)
    assert (model.stages(), model.aliases()) == ({number: "None"}, {})


def test_rollback_brings_back_what_was_live_before(model: Registered) -> None:
    first, second = model.version(), model.version(0.85)
    model.live(first, second)
    with model.site.bearer("approver"):
        outcome = rollback(model.site.lifecycle(), model.name)
    assert (outcome.version, outcome.instead_of) == (first, second)
    assert model.stages() == {first: "Production", second: "Archived"}
    assert model.aliases() == {"champion": first}


def test_rollback_away_from_a_version_happens_once(model: Registered) -> None:
    first, second, third = model.version(), model.version(0.85), model.version(0.86)
    model.live(first, second, third)
    with model.site.bearer("approver"):
        assert rollback(model.site.lifecycle(), model.name, away_from=third).changed
        assert not rollback(model.site.lifecycle(), model.name, away_from=third).changed
    assert model.stages()[second] == "Production"


def test_rollback_without_a_predecessor_says_so(model: Registered) -> None:
    number = model.version()
    model.live(number)
    with model.site.bearer("approver"), pytest.raises(LifecycleError, match="no other version"):
        rollback(model.site.lifecycle(), model.name)


def test_rollback_to_a_tampered_version_is_refused(model: Registered) -> None:
    first, second = model.version(), model.version(0.85)
    model.live(first, second)
    model.overwrite(first, b"something else")
    with model.site.bearer("approver"), pytest.raises(RefusedByPolicyError) as refused:
        rollback(model.site.lifecycle(), model.name)
    assert "model.skops was overwritten" in refused.value.findings[-1].observed
    assert model.stages()[second] == "Production"


def test_a_version_that_was_tampered_with_in_staging_is_not_promoted(model: Registered) -> None:
    number = model.version()
    with model.site.bearer("approver"):
        promote(model.site.lifecycle(), model.name, number, to="staging")
    model.overwrite(number, b"better, surely")
    with model.site.bearer("contributor"):
        model.site.client().set_model_version_tag(model.name, number, "lifecycle.manifest", "{}")
    with model.site.bearer("approver"), pytest.raises(RefusedByPolicyError):
        promote(model.site.lifecycle(), model.name, number, to="production")
    assert model.stages() == {number: "Staging"}


def test_a_server_that_seals_nothing_is_told_so_plainly(
    model: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = model.version()
    sealed = Registry.sealed

    def unsealed(registry: Registry, name: str, number: str) -> Model:
        found = sealed(registry, name, number)
        version = replace(found.version(number), tags={})
        return replace(found, versions={**found.versions, number: version})

    monkeypatch.setattr(Registry, "sealed", unsealed)
    monkeypatch.setattr(Registry, "seals", lambda _registry: False)
    with model.site.bearer("approver"), pytest.raises(RefusedByPolicyError) as refused:
        promote(model.site.lifecycle(), model.name, number, to="staging")
    assert refused.value.findings[-1].observed == "not sealed: nothing keeps the files as they are"
    assert model.stages() == {number: "None"}


def test_a_promotion_waits_until_the_server_has_sealed_the_version(
    model: Registered, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = model.version()
    states = iter(["copied 1 of 2 files", "copied 2 of 2 files"])
    read = Registry.model

    def pending(registry: Registry, name: str) -> Model:
        found = read(registry, name)
        message = next(states, "")
        status = "PENDING_REGISTRATION" if message else "READY"
        version = replace(found.version(number), status=status, status_message=message)
        return replace(found, versions={number: version})

    monkeypatch.setattr(Registry, "model", pending)
    monkeypatch.setattr("model_lifecycle.registry._POLL_SECONDS", 0)
    capsys.readouterr()
    with model.site.bearer("approver"):
        promote(model.site.lifecycle(), model.name, number, to="staging")
    assert capsys.readouterr().err.splitlines() == [
        f"version {number}: copied 1 of 2 files",
        f"version {number}: copied 2 of 2 files",
    ]


def test_a_version_that_cannot_be_sealed_is_not_promoted_and_says_why(model: Registered) -> None:
    with model.site.bearer("contributor"):
        client = model.site.client()
        run = client.create_run("0").info
        with pytest.raises(MlflowException, match="no file"):
            client.create_model_version(model.name, f"{run.artifact_uri}/nothing", run.run_id)
    with model.site.bearer("approver"), pytest.raises(LifecycleError, match="could not be sealed"):
        promote(model.site.lifecycle(), model.name, "1", to="staging")


def test_a_busy_server_is_asked_again_after_the_time_that_it_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []
    waited: list[float] = []

    class Sealing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            busy = len(asked) < 3
            body = b'{"message": "Sealing has begun."}' if busy else b"{}"
            self.send_response(503 if busy else 200)
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setattr("model_lifecycle.registry.time.sleep", waited.append)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sealing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        registry = Registry(f"http://127.0.0.1:{server.server_port}")
        registry.move("m", "1", "Staging", archive_existing=True, holder="", decision={"schema": 1})
        server.shutdown()
    assert [body["mlflow_aws.decision"] for body in asked] == [{"schema": 1}] * 3
    assert waited == [7.0, 7.0]
    assert capsys.readouterr().err.count("Sealing has begun.") == 1


def test_archiving_takes_the_alias_too(model: Registered) -> None:
    number = model.version()
    with model.site.bearer("approver"):
        promote(model.site.lifecycle(), model.name, number, to="staging")
        archive(model.site.lifecycle(), model.name, number)
    assert (model.stages(), model.aliases()) == ({number: "Archived"}, {})


def test_the_live_version_is_not_archived(model: Registered) -> None:
    number = model.version()
    model.live(number)
    with model.site.bearer("approver"), pytest.raises(RefusedByPolicyError, match="is refused"):
        archive(model.site.lifecycle(), model.name, number)
    assert model.stages() == {number: "Production"}


def test_of_two_promotions_at_once_exactly_one_wins(model: Registered) -> None:
    """Both have looked before either moves: the barrier stands between looking and moving."""
    first, rivals = model.version(), [model.version(0.85), model.version(0.86)]
    model.live(first)
    policy = model.site.policy.with_name(f"{model.name}.toml")
    policy.write_text('version = 1\n[transitions.production]\nfrom = ["None"]\n')
    both_looked = threading.Barrier(2)
    outcomes: dict[str, object] = {}

    def attempt(number: str) -> None:
        lifecycle = model.site.lifecycle()
        object.__setattr__(lifecycle, "policy", LoadedPolicy.load(policy))
        move = lifecycle.registry.move

        def wait_and_move(*arguments: str, **more: object) -> None:
            both_looked.wait(30)
            move(*arguments, **more)  # type: ignore[arg-type]

        lifecycle.registry.move = wait_and_move  # type: ignore[method-assign]
        try:
            outcomes[number] = promote(lifecycle, model.name, number, to="production")
        except ConflictError as error:
            outcomes[number] = error

    with model.site.bearer("approver"):
        threads = [threading.Thread(target=attempt, args=(number,)) for number in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        registry = model.site.registry().model(model.name)
    (lost,) = [number for number, outcome in outcomes.items() if isinstance(outcome, ConflictError)]
    (won,) = [number for number in rivals if number != lost]
    assert f"version {won} was moved to Production by {model.site.identity.arn('approver')}" in str(
        outcomes[lost]
    )
    assert model.stages() == {first: "Archived", won: "Production", lost: "None"}
    assert model.aliases() == {"champion": won}
    moves = [e for e in registry.history().events if e.stage == "Production"]
    assert [(event.version, event.previous) for event in moves] == [(first, ""), (won, first)]
    assert registry.history().of(lost) == ()


def test_a_server_that_verifies_nobody_is_refused_unless_asked_for() -> None:
    class Stock(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stock) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(LifecycleError, match="--unguarded"):
            Registry(uri).whoami()
        assert Registry(uri, guarded=False).whoami() is None
        server.shutdown()
