"""What follows from the server's record."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from itertools import count
from typing import Any

import pytest
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
    return history.record(tags, {}).events


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


class Recorder:
    """Writes entries as the server does, each with its number and the digest of the one before."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, str]] = {}
        self.model: dict[str, str] = {}
        self.last, self.number, self.days = "", 0, count()

    def entry(self, version: str, *, numbered: bool = True, deletes: bool = False, **more: Any) -> str:
        at = DAY + dt.timedelta(days=next(self.days))
        value: dict[str, Any] = {
            "at": at.isoformat(timespec="microseconds"),
            "principal": "cognito:ann",
            "action": "version-deleted" if deletes else "stage",
            "stage": "Staging",
            "alias": None,
            "archive_existing_versions": True,
            "previous": None,
        }
        if numbered:
            self.number += 1
            chained = {"number": self.number, "before": self.last, "version": version}
            value = {**chained, **value, "seal": "a" * 64, "decision": None, "figures": None, **more}
        key = f"mlflow_aws.history.{at:%Y%m%dT%H%M%S.%fZ}-abcd"
        text = json.dumps(value)
        self.last = hashlib.sha256(text.encode()).hexdigest()
        (self.model if deletes else self.versions.setdefault(version, {}))[key] = text
        return key

    def delete(self, version: str) -> str:
        """Delete a version; its entries go, and the model keeps which they were."""
        went = [json.loads(value) for value in self.versions.pop(version).values()]
        numbered = [each for each in went if "number" in each]
        gone: list[dict[str, Any]] = []
        for each in numbered:
            if gone and each["number"] == gone[-1]["last"] + 1:
                gone[-1]["last"] = each["number"]
            else:
                gone.append({"first": each["number"], "last": each["number"], "before": each["before"]})
        return self.entry(version, deletes=True, gone=gone)

    def problems(self) -> tuple[str, ...]:
        return history.record(self.versions, self.model).problems


@pytest.fixture
def recorder() -> Recorder:
    made = Recorder()
    for version in ("1", "1", "2", "1", "3"):
        made.entry(version)
    return made


def test_a_whole_chain_has_no_problem(recorder: Recorder) -> None:
    assert recorder.problems() == ()
    assert [event.number for event in history.record(recorder.versions, {}).events] == [1, 2, 3, 4, 5]


def test_a_missing_entry_shows(recorder: Recorder) -> None:
    recorder.versions["2"].clear()
    (problem,) = recorder.problems()
    assert problem.startswith("after the entry 2 comes 4")


def test_a_missing_first_entry_shows(recorder: Recorder) -> None:
    del recorder.versions["1"][min(recorder.versions["1"])]
    assert recorder.problems()[0].startswith("after the entry 0 comes 2")


@pytest.mark.parametrize("field", ["before", "principal", "seal", "decision", "at"])
def test_an_altered_entry_shows(recorder: Recorder, field: str) -> None:
    ((key, value),) = recorder.versions["2"].items()
    altered = "2026-01-03T00:00:01+00:00" if field == "at" else {} if field == "decision" else "b" * 64
    recorder.versions["2"][key] = json.dumps({**json.loads(value), field: altered})
    assert "does not follow from the one before it" in recorder.problems()[0]


def test_an_entry_that_is_moved_to_another_version_shows(recorder: Recorder) -> None:
    ((key, value),) = recorder.versions.pop("2").items()
    recorder.versions["1"][key] = value
    assert "of version 2 is found in version 1" in recorder.problems()[0]


@pytest.mark.parametrize("value", ["", "[]", "{", "[" * 100_000, '{"at": 5}', '{"at": "x", "action": []}'])
def test_an_entry_that_cannot_be_read_shows_and_breaks_nothing(recorder: Recorder, value: str) -> None:
    ((key, _),) = recorder.versions["2"].items()
    recorder.versions["2"][key] = value
    assert f"the entry {key} cannot be read" in recorder.problems()
    assert len(history.record(recorder.versions, {}).events) == 4


def test_entries_from_before_the_chain_stand_before_it() -> None:
    recorder = Recorder()
    recorder.entry("1", numbered=False)
    recorder.entry("2", numbered=False)
    recorder.entry("1")
    assert recorder.problems() == ()
    events = history.record(recorder.versions, {}).events
    assert [(event.version, event.number) for event in events] == [("1", None), ("2", None), ("1", 1)]


def test_an_altered_entry_from_before_the_chain_shows_if_it_is_the_last() -> None:
    recorder = Recorder()
    key = recorder.entry("1", numbered=False)
    recorder.entry("1")
    recorder.versions["1"][key] += " "
    assert "the entry 1" in recorder.problems()[0]


def test_a_version_that_was_deleted_leaves_a_gap_that_is_no_problem(recorder: Recorder) -> None:
    recorder.delete("1")
    recorder.entry("2")
    assert recorder.problems() == ()
    recorder.delete("2")
    assert recorder.problems() == ()
    recorder.delete("3")
    recorder.entry("4")
    assert recorder.problems() == ()


def test_a_gap_beside_a_deletion_shows(recorder: Recorder) -> None:
    recorder.delete("2")
    recorder.entry("1")
    del recorder.versions["3"]
    assert recorder.problems()


def test_an_altered_entry_before_a_deleted_one_shows(recorder: Recorder) -> None:
    recorder.delete("2")
    key = sorted(recorder.versions["1"])[1]
    recorder.versions["1"][key] += " "
    assert recorder.problems() == ("the entry 2 is not the one that the deleted entry 3 followed",)


def test_a_legacy_entry_that_went_with_a_version_is_no_problem() -> None:
    recorder = Recorder()
    recorder.entry("1", numbered=False)
    recorder.entry("2")
    recorder.delete("1")
    assert recorder.problems() == ()


def test_the_decision_is_read_from_the_entry_and_what_is_none_is_no_decision(recorder: Recorder) -> None:
    made = {
        "schema": 1,
        "action": "promote",
        "policy": {"file": "policy.toml", "version": 3, "sha256": "c" * 64},
        "rules": [],
        "compared_with": None,
        "figures": {"auc": "NaN"},
        "ci": None,
    }
    recorder.entry("4", decision=made)
    recorder.entry("4", decision={"schema": 2})
    *_, read, unread = history.record(recorder.versions, {}).events
    assert read.decision is not None
    assert (read.decision.policy.version, str(read.decision.figures["auc"])) == (3, "nan")
    assert unread.decision is None
