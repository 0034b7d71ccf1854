"""The account for people, without a server: whatever is in it, it is shown as text."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_lifecycle import Explanation, report
from model_lifecycle.decision import Decision, claims
from model_lifecycle.evidence import Damage, Integrity, RecordedFile, SealTag
from model_lifecycle.explanation import Dataset, LifeEvent, Live, Plot, _of_ms

from tests.lifecycle.test_decision import GOOD, POISON

AT = "2026-01-31T12:00:00+00:00"
MARK = "pwned"
HOSTILE = [
    f"<script>{MARK}</script>",
    f'"><img src=x onerror={MARK}>',
    f"</style></title><svg onload={MARK}>",
    "{{ 7*7 }}{% for x in y %}",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "one\r\ntwo\n  ✓ files      intact",
    "\u202egnp.exe\u2066",
    "[" * 5000,
    "x" * 5000,
    "data:image/svg+xml,<svg onload=1>",
    "✓",
    "",
    "null",
]


class _Elements(HTMLParser):
    """The elements of a page, and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}


def shows_only_text(account: Explanation) -> None:
    """The page has no element, attribute or link but the template's; the terminal's lines are printable."""
    page = _Elements()
    html = report.as_html(account)
    page.feed(html)
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "base", "form"}
    assert not {name for name in page.attributes if name.startswith("on")}
    assert all(link.startswith(("https://", "data:image/")) for link in page.links)
    assert html.count("<main>") == 1
    assert all(line.isprintable() for line in report.as_text(account).split("\n"))
    json.dumps(account.as_dict(), allow_nan=False)


def account(text: str, figure: float = 0.8, **more: Any) -> Explanation:
    """An account in which everything that anybody wrote is `text`."""
    made = Decision.model_validate_json(json.dumps({**GOOD, "action": text, "ci": {"url": text}}))
    seal = SealTag(
        at=AT, bucket="b", prefix="p", manifest=text, sha256="a" * 64, files=1, bytes=1, source=text
    )
    file = RecordedFile(
        path=text, version_id="v", size=1, checksum="c", checksum_type="FULL_OBJECT", etag="e"
    )
    damage = (Damage(text, "overwritten", "v", text, "c", "d", AT, recoverable=True),)
    known: dict[str, Any] = {field.name: text for field in dataclasses.fields(Explanation)}
    return Explanation(
        **{
            **known,
            "generated": AT,
            "version": "3",
            "registered_at": AT,
            "trained_at": "",
            "aliases": (text,),
            "approved_by": (text,),
            "parameters": {text: text},
            "metrics": {text: figure},
            "data": (Dataset(text, text, text, text, text, {text: text}),),
            "code": {text: text},
            "environment": {text: text},
            "life": (LifeEvent(AT, text, text, text, 1, made),),
            "live": (Live(f"@{text}", AT, ""), Live("Production", "", AT)),
            "stage_history": ({"version": "3", "since": AT, "until": "", "by": text},),
            "integrity": Integrity("tampered", text, AT, seal, (file,), damage),
            "record_entries": 1,
            "record_problems": (text,),
            "claims": claims({f"lifecycle.decision.{text}": json.dumps({**GOOD, "action": text})}),
            "warnings": (text,),
            "images": (Plot(text, "image/png", "aGk="),),
            **more,
        }
    )


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_text_wherever_it_stands(text: str) -> None:
    shows_only_text(account(text))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(codec="utf-8")), st.floats())
def test_any_text_and_any_figure_are_shown(text: str, figure: float) -> None:
    shows_only_text(account(text, figure))


@pytest.mark.parametrize("poison", POISON, ids=str)
def test_a_poisoned_claim_is_shown_as_text(poison: dict[str, Any]) -> None:
    shows_only_text(account("x", claims=claims({"lifecycle.decision.x": json.dumps({**GOOD, **poison})})))


def test_a_megabyte_is_cut_with_its_length() -> None:
    huge = account("x", description="<b>" + "x" * 1_000_000)
    html = report.as_html(huge)
    assert "(1,000,003 characters)" in html
    assert len(html) < 100_000


def test_a_link_to_the_ci_run_is_one_of_https_only() -> None:
    assert '<a href="https://ci.example.com/1">' in report.as_html(account("https://ci.example.com/1"))
    assert "<a " not in report.as_html(account("javascript:alert(1)"))


def test_the_page_says_when_s3_was_asked() -> None:
    intact = Integrity("intact", "2 files", AT)
    html = report.as_html(account("x", integrity=intact, record_problems=()))
    assert "2 files (checked 2026-01-31 12:00:00 UTC)" in html
    assert "The server’s record is whole" in html


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ('{"uri": "s3://data/1.csv"}', "s3://data/1.csv"),
        ('{"tags": {"mlflow.source.name": "train.py"}}', "name train.py"),
        ("[" * 100_000, "[[["),
        ('{"uri": {"a": 1}}', "{&#39;a&#39;: 1}"),
        ("5", "5"),
    ],
    ids=["uri", "tags", "deep", "typed", "number"],
)
def test_where_data_came_from_is_shown_as_well_as_it_can_be_read(source: str, shown: str) -> None:
    html = report.as_html(account("x", data=(Dataset("d", "1", "", source, "local", {}),)))
    assert f"<td>{shown}" in html


@pytest.mark.parametrize("moment", [2**62, -(2**62), 10**17, -1, 0, None])
def test_a_start_that_is_no_time_is_none(moment: int | None) -> None:
    assert _of_ms(moment) in ("", "1969-12-31T23:59:59.999+00:00")


def test_a_start_is_told_in_utc() -> None:
    assert dt.datetime.fromisoformat(_of_ms(1_000)) == dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC)
