"""What follows from the server's record."""

from __future__ import annotations

import datetime as dt
import json
from itertools import count

from model_lifecycle import history

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def _record(*moves: tuple[str, str] | tuple[str, str, str]) -> tuple[history.Event, ...]:
    """One move a day: (version, stage or @alias or -@alias, what was there before)."""
    tags: dict[str, dict[str, str]] = {}
    days = count()
    for version, place, *before in moves:
        at = DAY + dt.timedelta(days=next(days))
        alias = place.lstrip("-")[1:] if "@" in place else None
        action = "stage" if alias is None else "alias-removed" if place.startswith("-") else "alias"
        value = {
            "at": at.isoformat().replace("+00:00", "Z"),
            "principal": "cognito:ann",
            "action": action,
            "stage": None if alias else place,
            "alias": alias,
            "archive_existing_versions": alias is None and place != "Archived",
            "previous": before[0] if before else None,
        }
        key = f"mlflow_aws.history.{at:%Y%m%dT%H%M%S.%fZ}-abcd"
        tags.setdefault(version, {})[key] = json.dumps(value)
    tags.setdefault("1", {})["other"] = "not ours"
    return history.events(tags)


def _held(tenures: tuple[history.Tenure, ...]) -> list[tuple[str, int, int | None]]:
    return [
        (t.version, (t.since - DAY).days if t.since else -1, (t.until - DAY).days if t.until else None)
        for t in tenures
    ]


def test_a_promotion_ends_what_was_live_before() -> None:
    seen = _record(("1", "Production"), ("2", "Production", "1"))
    assert _held(history.stage_tenures(seen, "Production")) == [("1", 0, 1), ("2", 1, None)]


def test_an_archived_version_leaves_nothing_live() -> None:
    seen = _record(("1", "Production"), ("1", "Archived"))
    assert _held(history.stage_tenures(seen, "Production")) == [("1", 0, 1)]


def test_a_version_that_comes_back_was_live_twice() -> None:
    seen = _record(("1", "Production"), ("2", "Production", "1"), ("1", "Production", "2"))
    assert _held(history.stage_tenures(seen, "Production")) == [("1", 0, 1), ("2", 1, 2), ("1", 2, None)]


def test_what_was_live_before_the_record_began_is_known_by_name() -> None:
    seen = _record(("5", "Production", "4"))
    assert _held(history.stage_tenures(seen, "Production")) == [("4", -1, 0), ("5", 0, None)]


def test_moving_a_version_to_where_it_is_changes_nothing() -> None:
    seen = _record(("1", "Production"), ("1", "Production", "1"))
    assert _held(history.stage_tenures(seen, "Production")) == [("1", 0, None)]


def test_an_alias_has_tenures_too() -> None:
    seen = _record(("1", "@champion"), ("2", "@champion", "1"), ("2", "-@champion", "2"))
    assert _held(history.alias_tenures(seen, "champion")) == [("1", 0, 1), ("2", 1, 2)]


def test_rollback_returns_to_what_was_live_before() -> None:
    seen = _record(("1", "Production"), ("2", "Production", "1"), ("3", "Production", "2"))
    assert history.before(history.stage_tenures(seen, "Production"), existing=("1", "2", "3")) == "2"


def test_a_second_rollback_goes_further_back_instead_of_forth() -> None:
    seen = _record(("1", "Production"), ("2", "Production"), ("3", "Production"), ("2", "Production"))
    assert history.before(history.stage_tenures(seen, "Production"), existing=("1", "2", "3")) == "1"


def test_after_the_first_version_there_is_nothing_to_roll_back_to() -> None:
    seen = _record(("1", "Production"), ("2", "Production"), ("1", "Production"))
    assert history.before(history.stage_tenures(seen, "Production"), existing=("1", "2")) == ""


def test_rollback_passes_over_deleted_versions() -> None:
    seen = _record(("1", "Production"), ("2", "Production"), ("3", "Production"))
    assert history.before(history.stage_tenures(seen, "Production"), existing=("1", "3")) == "1"


def test_a_tenure_includes_its_start_and_not_its_end() -> None:
    (first, _) = history.stage_tenures(_record(("1", "Production"), ("2", "Production")), "Production")
    assert first.includes(DAY)
    assert not first.includes(DAY + dt.timedelta(days=1))
