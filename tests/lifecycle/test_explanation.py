"""The account of a version: its whole life, and what is wrong with its files."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from model_lifecycle import Explanation, LifecycleError, archive, explain, report, rollback
from model_lifecycle.decision import PREFIX
from model_lifecycle.explanation import moment

from tests.lifecycle.conftest import Registered, Site, new_model


def _explain(model: Registered, **which: str) -> Explanation:
    with model.site.bearer("viewer"):
        return explain(model.site.registry(), model.name, s3=lambda: model.site.s3, **which)  # type: ignore[arg-type]


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
    assert account.integrity == "intact"


def test_the_version_that_came_back_was_live_twice(rolled_back: Registered) -> None:
    account = _explain(rolled_back, stage="Production")
    assert account.version == "1"
    live = [each for each in account.live if each.name == "Production"]
    assert [bool(each.until) for each in live] == [True, False]
    assert "back in Production by a rollback" in [each.what for each in account.life]
    assert all(each.confirmed for each in account.life)


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
    touched.site.s3.write(touched.key("2"), b"another model")
    account = _explain(touched, version="2")
    assert account.tampered
    assert [(each.path, each.what) for each in account.damage] == [("model.skops", "overwritten")]


def test_a_manifest_written_again_after_the_fact_is_no_cover(touched: Registered) -> None:
    from model_lifecycle import evidence

    site = touched.site
    site.s3.write(touched.key("2"), b"another model")
    with site.bearer("contributor"):
        uri = site.client().get_model_version_download_uri(touched.name, "2")
        forged = evidence.record(site.s3, uri)
        for key, value in forged.to_tags().items():
            site.client().set_model_version_tag(touched.name, "2", key, value)
    assert _explain(touched, version="2").tampered


def test_a_decision_that_nobody_carried_out_is_marked(touched: Registered) -> None:
    with touched.site.bearer("contributor"):
        client = touched.site.client()
        tags = client.get_model_version(touched.name, "2").tags
        made = json.loads(next(value for key, value in tags.items() if key.startswith(PREFIX)))
        made["event"] = "20300101T000000.000000Z-beef"
        client.set_model_version_tag(touched.name, "2", f"{PREFIX}{made['event']}", json.dumps(made))
    account = _explain(touched, version="2")
    assert [each.what for each in account.life if not each.confirmed] == ["decision to promote"]


def test_a_move_without_a_decision_is_said_to_be_one(model: Registered) -> None:
    number = model.version()
    with model.site.bearer("approver"):
        model.site.registry().move(model.name, number, "Production", archive_existing=True, holder="")
    account = _explain(model, version=number)
    assert "without a recorded policy decision" in account.life[-1].detail
    assert account.integrity == "not recorded"


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
