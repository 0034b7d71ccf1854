"""Findings as people and programs read them."""

from __future__ import annotations

import io
import json

from findings.finding import FAILED, PASSED, AccountFinding, Mark, as_json, counted, exit_code, show

GOOD = AccountFinding("the door is shut", Mark.GOOD, {"door": "shut"}, "shut it")
BAD = AccountFinding("the window is shut", Mark.BAD, "open", "shut the window")
UNASKED = AccountFinding("the roof is on", Mark.NOT_ASKED, "there is no roof here")


def test_the_remedy_stands_beside_what_is_not_good() -> None:
    stream = io.StringIO()
    show([GOOD, BAD], stream)
    assert "→ shut the window" in stream.getvalue()
    assert "→ shut it" not in stream.getvalue()


def test_only_what_is_bad_makes_the_exit_code_1() -> None:
    warned = AccountFinding("it may rain", Mark.WARNING, "clouds")
    assert exit_code([GOOD, warned, UNASKED]) == PASSED
    assert exit_code([GOOD, BAD]) == FAILED


def test_what_was_not_asked_does_not_count_as_passed() -> None:
    assert counted([GOOD, BAD, UNASKED]) == "1 passed, 1 failed, 1 not asked here"


def test_programs_get_everything() -> None:
    told = json.loads(as_json([BAD], region="here"))
    assert told == {
        "region": "here",
        "findings": [
            {
                "title": "the window is shut",
                "result": "failed",
                "observed": "open",
                "remedy": "shut the window",
            }
        ],
    }
