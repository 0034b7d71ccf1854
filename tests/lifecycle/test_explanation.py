"""The account of a version: its whole life, and what is wrong with its files."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import time
from typing import Any

import pytest
from model_lifecycle import (
    Explanation,
    LifecycleError,
    RefusedByPolicyError,
    Registry,
    archive,
    explain,
    promote,
    report,
    rollback,
)
from model_lifecycle.explanation import moment
from model_lifecycle.history import PREFIX, Event, History

from tests.lifecycle.conftest import Registered, Site, new_model
from tests.lifecycle.test_decision import GOOD, POISON


def _explain(model: Registered, **which: str) -> Explanation:
    with model.site.bearer("viewer"):
        return explain(model.site.registry(), model.name, s3=lambda: model.site.store.client, **which)  # type: ignore[arg-type]


def _rolled_back(site: Site) -> Registered:
    model = new_model(site)
    model.live(model.version(), model.version(0.85))
    with site.bearer("approver"):
        rollback(site.lifecycle(), model.name)
    return model


@pytest.fixture(scope="module")
def rolled_back(site: Site) -> Registered:
    """Version 1 is live again, version 2 was live in between and is archived; for tests that only look."""
    return _rolled_back(site)


@pytest.fixture(scope="module")
def touched(site: Site) -> Registered:
    """The same, for tests that leave traces on it."""
    return _rolled_back(site)


def test_a_rolled_back_version_shows_its_whole_life(rolled_back: Registered) -> None:
    account = _explain(rolled_back, version="2")
    assert [each.what for each in account.life] == [
        "trained",
        "registered",
        "moved to Staging",
        "given the alias challenger",
        "moved to Production",
        "given the alias champion",
        "lost the alias challenger",
        "archived",
        "lost the alias champion",
    ]
    contributor, approver = map(rolled_back.site.identity.arn, ("contributor", "approver"))
    assert [each.by for each in account.life] == [contributor, contributor, *[approver] * 7]
    assert account.stage == "Archived"
    assert (account.integrity.verdict, account.record_problems) == ("intact", ())


def test_the_version_that_came_back_was_live_twice(rolled_back: Registered) -> None:
    account = _explain(rolled_back, stage="Production")
    assert account.version == "1"
    live = [each for each in account.live if each.name == "Production"]
    assert [bool(each.until) for each in live] == [True, False]
    assert "back in Production by a rollback" in [each.what for each in account.life]
    moves = [each for each in account.life if "Production" in each.what]
    assert [each.decision.action for each in moves if each.decision] == ["promote", "rollback"]


def test_a_moment_names_the_version_that_was_live_then(rolled_back: Registered) -> None:
    since = next(each.since for each in _explain(rolled_back, version="2").live if each.name == "Production")
    assert _explain(rolled_back, at=since).version == "2"
    assert _explain(rolled_back, at=dt.datetime.now(dt.UTC).isoformat()).version == "1"


def test_a_moment_before_the_first_promotion_names_none(rolled_back: Registered) -> None:
    with pytest.raises(LifecycleError, match="no version"):
        _explain(rolled_back, at="2001-01-01")


def test_an_archived_version_is_explained_with_its_tampered_file(touched: Registered) -> None:
    with touched.site.bearer("approver"):
        archive(touched.site.lifecycle(), touched.name, "2")
    touched.overwrite("2", b"another model")
    account = _explain(touched, version="2")
    assert account.tampered
    assert [(each.path, each.what) for each in account.integrity.damage] == [("model.skops", "overwritten")]


def test_a_claim_of_a_client_makes_no_version_tampered(model: Registered) -> None:
    """The issue's fourth point: a decision with a foreign digest, and worse."""
    number = model.version()
    model.live(number)
    claims = {
        "lifecycle.manifest": '{"bucket": "b", "prefix": "p", "items": []}',
        "lifecycle.decision.20300101T000000.000000Z-beef": json.dumps({**GOOD, "manifest_sha256": "f" * 64}),
    }
    for n, poison in enumerate(POISON):
        claims[f"lifecycle.decision.{n}"] = json.dumps({**GOOD, **poison})
    with model.site.bearer("contributor"):
        for key, value in claims.items():
            model.site.client().set_model_version_tag(model.name, number, key, value)
    account = _explain(model, version=number)
    assert (account.tampered, account.integrity.verdict) == (False, "intact")
    assert {each.tag for each in account.claims} == set(claims)
    assert "<img" not in report.as_html(account)
    json.dumps(account.as_dict(), allow_nan=False)
    with model.site.bearer("approver"):
        assert not promote(model.site.lifecycle(), model.name, number, to="production").changed
        with pytest.raises(RefusedByPolicyError, match="is refused"):
            archive(model.site.lifecycle(), model.name, number)


def test_a_move_without_a_decision_is_said_to_be_one(model: Registered) -> None:
    number = model.version()
    with model.site.bearer("approver"):
        model.site.registry().move(model.name, number, "Production", archive_existing=True, holder="")
    account = _explain(model, version=number)
    assert "without a recorded policy decision" in account.life[-1].detail


def test_an_artifact_of_the_run_that_is_younger_than_the_promotion_is_a_warning(model: Registered) -> None:
    number = model.version()
    model.live(number)
    time.sleep(1.1)
    with model.site.bearer("viewer"):
        uri = model.site.client().get_run(model.run_id(number)).info.artifact_uri
    prefix = uri.removeprefix(f"s3://{model.site.store.bucket}/")
    model.site.store.write_model(prefix, {"plots/roc.png": b"better"})
    account = _explain(model, version=number)
    assert (
        "the run's artifact plots/roc.png was written after the version's first promotion" in account.warnings
    )
    assert not account.tampered
    assert [(plot.path, plot.media_type) for plot in account.images] == [("plots/roc.png", "image/png")]


def test_a_version_that_was_deleted_leaves_the_record_whole_and_a_warning(model: Registered) -> None:
    first, second, third = model.version(), model.version(0.85), model.version(0.86)
    model.live(first, second, third)
    with model.site.bearer("admin"):
        model.site.client().delete_model_version(model.name, second)
    model.live(model.version(0.87))
    account = _explain(model, version=first)
    assert (account.record_problems, account.tampered) == ((), False)
    (warning,) = [each for each in account.warnings if "deleted" in each]
    assert warning.startswith(f"version {second} was deleted at ")
    assert model.site.identity.arn("admin") in warning


def test_a_version_that_went_live_under_another_seal_is_tampered_with(
    model: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = model.version()
    model.live(number)
    of = History.of

    def other(history: History, version: str) -> tuple[Event, ...]:
        return tuple(event.model_copy(update={"seal": "0" * 64}) for event in of(history, version))

    monkeypatch.setattr(History, "of", other)
    account = _explain(model, version=number)
    assert account.tampered
    assert "names another seal" in account.integrity.note


def test_a_broken_record_is_told_and_counts_as_tampering(
    model: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = model.version(), model.version(0.85)
    model.live(first, second)
    read = Registry.model

    def with_a_gap(registry: Registry, name: str) -> Any:
        found = read(registry, name)
        tags = dict(found.version(first).tags)
        del tags[min(key for key in tags if key.startswith(PREFIX))]
        version = dataclasses.replace(found.version(first), tags=tags)
        return dataclasses.replace(found, versions={**found.versions, first: version})

    monkeypatch.setattr(Registry, "model", with_a_gap)
    account = _explain(model, version=second)
    assert account.tampered
    assert account.integrity.verdict == "intact"
    assert "The server’s record is not whole" in report.as_html(account)
    assert "✗ record     not whole" in report.as_text(account)


def test_an_alias_that_is_not_there_is_answered_with_those_that_are(rolled_back: Registered) -> None:
    with pytest.raises(LifecycleError, match="its aliases: champion"):
        _explain(rolled_back, alias="winner")


def test_the_report_needs_nothing_but_itself(rolled_back: Registered) -> None:
    html = report.as_html(_explain(rolled_back, version="2"))
    for foreign in ("<script", "<link", 'src="http', "@import", "url("):
        assert foreign not in html
    assert "<svg" in html
    assert "S3 object version" in html


def test_the_report_escapes_what_clients_wrote(model: Registered) -> None:
    number = model.version()
    with model.site.bearer("contributor"):
        model.site.client().update_model_version(model.name, number, "<script>alert(1)</script>")
    assert "<script>" not in report.as_html(_explain(model, version=number))


def test_the_text_names_the_whole_account(rolled_back: Registered) -> None:
    words = report.as_text(_explain(rolled_back, version="2"))
    assert "✓ files      intact" in words
    assert "auc = 0.85" in words


def test_a_date_is_a_whole_day_and_a_time_a_moment() -> None:
    start, end = moment("2026-01-31")
    assert (end - start, start.isoformat()) == (dt.timedelta(days=1), "2026-01-31T00:00:00+00:00")
    assert moment("2026-01-31T12:00")[0] == moment("2026-01-31T13:00+01:00")[0]


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "31.01.2026"])
def test_what_is_no_date_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(LifecycleError, match="2026-01-31"):
        moment(text)
