"""Promotion, rollback and archiving at a real server, each under its own identity."""

from __future__ import annotations

import http.server
import threading

import pytest
from model_lifecycle import (
    ConflictError,
    LifecycleError,
    LoadedPolicy,
    NotPermittedError,
    RefusedByPolicyError,
    Registry,
    archive,
    promote,
    record,
    rollback,
)
from model_lifecycle.decision import decisions
from model_lifecycle.history import events

from tests.lifecycle.conftest import Registered


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
        made = promote(model.site.lifecycle(**run), model.name, second, to="production").decision
        tags = model.site.registry().model(model.name).version(second).tags
    assert made is not None
    assert made in decisions(tags)
    assert made.policy["sha256"] == LoadedPolicy.load(model.site.policy).sha256
    assert made.principal == model.site.identity.arn("approver")
    assert made.ci == {"url": "https://github.example.com/team/models/actions/runs/42"}
    figures = next(rule["figures"] for rule in made.rules if rule["rule"] == "auc against current")
    assert (figures["candidate"], figures["current"], figures["current_version"]) == (0.85, 0.8, first)


def test_the_servers_own_record_confirms_the_decision(model: Registered) -> None:
    number = model.version()
    model.live(number)
    with model.site.bearer("viewer"):
        tags = model.site.registry().model(model.name).version(number).tags
    recorded = {event.identifier: event for event in events({number: tags})}
    assert [made.is_confirmed_by(recorded.get(made.event)) for made in decisions(tags)] == [True, True]


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
        tags = model.site.registry().model(model.name).version(number).tags
    assert outcome.changed
    assert [made.stage for made in decisions(tags)] == ["Staging", "Production"]
    assert model.aliases() == {"champion": number}


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
    model.site.s3.write(model.key(first), b"something else")
    with model.site.bearer("approver"), pytest.raises(RefusedByPolicyError) as refused:
        rollback(model.site.lifecycle(), model.name)
    assert "model.skops was overwritten" in refused.value.findings[-1].observed
    assert model.stages()[second] == "Production"


def test_a_version_that_changed_after_it_was_recorded_is_not_promoted(model: Registered) -> None:
    number = model.version()
    with model.site.bearer("contributor"):
        record(model.site.registry(), model.name, number, lambda: model.site.s3)
    model.site.s3.write(model.key(number), b"better, surely")
    with model.site.bearer("approver"), pytest.raises(RefusedByPolicyError):
        promote(model.site.lifecycle(), model.name, number, to="staging")
    assert model.stages() == {number: "None"}


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
    moves = [e for e in events(registry.tags()) if e.stage == "Production"]
    assert [(event.version, event.previous) for event in moves] == [(first, ""), (won, first)]
    assert decisions(registry.version(lost).tags) == ()


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
