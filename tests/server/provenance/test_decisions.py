"""A decision is kept with the move that it led to, if its types are right and its figures the run's."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow_aws_server.provenance.decisions import FIELD, LARGEST, PromotionDecision
from mlflow_aws_server.provenance.errors import ProvenanceError

from tests.server.provenance.harness import Server, chain_of

STAGE, ALIAS = "model-versions/transition-stage", "registered-models/alias"

DECISION: dict[str, Any] = {
    "schema": 1,
    "action": "promote",
    "policy": {"file": "policy.toml", "version": 3, "sha256": "ab" * 32},
    "rules": [
        {
            "rule": "auc minimum",
            "passed": True,
            "observed": "0.91",
            "required": ">= 0.8",
            "figures": {"metric": "auc", "candidate": 0.91, "current": None, "threshold": 0.8},
        }
    ],
    "compared_with": "1",
    "figures": {"auc": 0.91},
    "ci": {"url": "https://github.com/o/r/actions/runs/1", "actor": "alice"},
}


def _with(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DECISION), **changes}


def _measured(server: Server, name: str, **metrics: float | str) -> str:
    """A model with one version, whose run has these metrics; returns the run."""
    run = server.new_run()
    for key, value in metrics.items():
        server.post("runs/log-metric", {"run_id": run, "key": key, "value": value, "timestamp": 1, "step": 0})
    server.post("registered-models/create", {"name": name})
    source = f"s3://bucket/root/0/{run}/artifacts/m"
    server.post("model-versions/create", {"name": name, "source": source, "run_id": run})
    return run


def _move(server: Server, name: str, decision: object, **more: object) -> Any:
    body = {"name": name, "version": "1", "stage": "Production", FIELD: decision, **more}
    return server.send("POST", STAGE, body)


def test_decision_is_in_the_same_entry_as_the_move(server: Server, name: str) -> None:
    _measured(server, name, auc=0.91, loss=0.3)
    assert _move(server, name, DECISION).status == 200
    [entry] = chain_of(server, name)
    assert (entry["action"], entry["stage"]) == ("stage", "Production")
    assert entry["decision"] == DECISION
    assert entry["figures"] == {"auc": 0.91}


def test_decision_goes_with_an_alias_as_well(server: Server, name: str) -> None:
    _measured(server, name, auc=0.91)
    server.post(ALIAS, {"name": name, "version": "1", "alias": "champion", FIELD: DECISION})
    assert chain_of(server, name)[0]["decision"] == DECISION


def test_what_names_no_version_takes_no_decision(server: Server, name: str) -> None:
    _measured(server, name, auc=0.91)
    server.post(ALIAS, {"name": name, "version": "1", "alias": "champion"})
    for path, more in ((ALIAS, {"alias": "champion"}), ("model-versions/delete", {"version": "1"})):
        answer = server.send("DELETE", path, {"name": name, **more, FIELD: DECISION})
        assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")
    assert len(chain_of(server, name)) == 1


def test_mlflow_gets_no_decision(server: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    inner = server.app._promotions._app  # type: ignore[attr-defined]

    async def looking(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        seen.append(message.get("body", b""))

        async def again() -> Any:
            return message

        await inner(scope, again, send)

    _measured(server, name, auc=0.91)
    monkeypatch.setattr(server.app._promotions, "_app", looking)  # type: ignore[attr-defined]
    assert _move(server, name, DECISION).status == 200
    assert any(b"Production" in body for body in seen)
    assert not any(b"decision" in body for body in seen)


@pytest.mark.parametrize(
    ("measured", "claimed"),
    [
        (0.1 + 0.2, 0.1 + 0.2),
        (1, 1),
        (1.0, 1),
        ("NaN", "NaN"),
        ("NaN", math.nan),
        (-0.0, 0.0),
        (5e-324, 5e-324),
    ],
)
def test_figures_that_the_run_has_are_taken(
    server: Server, name: str, measured: float | str, claimed: object
) -> None:
    _measured(server, name, auc=measured)
    answer = _move(server, name, _with(figures={"auc": claimed}))
    assert answer.status == 200, answer.body
    [entry] = chain_of(server, name)
    # Readable by any parser of JSON.
    assert "NaN" not in json.dumps(entry).replace('"NaN"', "")
    kept = entry["figures"]["auc"]
    assert kept == entry["decision"]["figures"]["auc"]
    assert kept == ("NaN" if measured == "NaN" else measured)


@pytest.mark.parametrize(
    ("figures", "named"),
    [
        ({"auc": 0.99}, ("auc", "0.99", "0.91")),
        ({"auc": math.nextafter(0.91, 1)}, ("auc", "0.9100000000000001", "0.91")),
        ({"auc": "NaN"}, ("auc", "NaN", "0.91")),
        ({"auc": "Infinity"}, ("auc", "Infinity", "0.91")),
        ({"auc": 0.91, "loss": 0.1}, ("loss", "0.1", "none of that name")),
        ({"AUC": 0.91}, ("AUC", "0.91", "none of that name")),
        ({"spoilt": 0.5}, ("spoilt", "0.5", "NaN")),
    ],
)
def test_figures_that_the_run_does_not_have_change_nothing(
    server: Server, name: str, figures: dict[str, object], named: tuple[str, ...]
) -> None:
    run = _measured(server, name, auc=0.91, spoilt="NaN")
    answer = _move(server, name, _with(figures=figures))
    assert (answer.status, answer.code) == (409, "RESOURCE_CONFLICT")
    assert all(part in answer.json["message"] for part in (*named, run))
    assert server.version(name, "1")["current_stage"] == "None"
    assert chain_of(server, name) == []


def test_figures_are_those_that_the_run_has_now(server: Server, name: str) -> None:
    run = _measured(server, name, auc=0.91)
    body = {"run_id": run, "key": "auc", "value": 0.5, "timestamp": 2, "step": 1}
    server.post("runs/log-metric", body)
    assert _move(server, name, DECISION).status == 409
    assert _move(server, name, _with(figures={"auc": 0.5})).status == 200


def test_version_without_a_run_has_no_figures(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    answer = _move(server, name, DECISION)
    assert (answer.status, answer.code) == (409, "RESOURCE_CONFLICT")
    assert "no run" in answer.json["message"]
    assert _move(server, name, _with(figures={})).status == 200


def test_stock_clients_send_none(server: Server, name: str) -> None:
    _measured(server, name, auc=0.91)
    assert _move(server, name, None).status == 200
    [entry] = chain_of(server, name)
    assert (entry["decision"], entry["figures"]) == (None, None)


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in DECISION.items() if name != key}


def _in(part: str, **changes: Any) -> dict[str, Any]:
    inside = {**DECISION["policy"], **changes} if part == "policy" else [{**DECISION["rules"][0], **changes}]
    return _with(**{part: inside})


def _nested(depth: int) -> Any:
    value: Any = 0.5
    for _ in range(depth):
        value = [value]
    return value


WRONG = {
    "a text": "promote",
    "JSON in a text": json.dumps(DECISION),
    "a list": [DECISION],
    "empty": {},
    "false": False,
    "another schema": _with(schema=2),
    "a schema as text": _with(schema="1"),
    "a schema that is true": _with(schema=True),
    **{f"no {key}": _without(key) for key in DECISION},
    "an unknown field": _with(event=["x"]),
    "an action of a wrong type": _with(action=["promote"]),
    "a policy of a wrong type": _with(policy=5),
    "a policy without a digest": _in("policy", sha256=""),
    "a policy with an unknown field": _in("policy", author="x"),
    "a policy's version": _in("policy", version=1.5),
    "rules of a wrong type": _with(rules=5),
    "a rule of a wrong type": _with(rules=["x"]),
    "a rule passed in words": _in("rules", passed="yes"),
    "a rule passed by 1": _in("rules", passed=1),
    "a rule that observed nothing": _in("rules", observed=None),
    "a rule's figures nested": _in("rules", figures={"a": {"b": 1}}),
    "figures as a list": _with(figures=[["auc", 0.91]]),
    "a figure as text": _with(figures={"auc": "0.91"}),
    "a figure that is true": _with(figures={"auc": True}),
    "a figure that is missing": _with(figures={"auc": None}),
    "a figure beyond all floats": _with(figures={"auc": 10**400}),
    "a metric without a name": _with(figures={"": 0.5}),
    "a metric with a zero byte": _with(figures={"a\x00": 0.5}),
    "a metric with half a character": _with(figures={"\ud800": 0.5}),
    "a metric's name too long": _with(figures={"a" * 251: 0.5}),
    "ci of a wrong type": _with(ci=["x"]),
    "ci with a number": _with(ci={"run": 1}),
    "nesting": _with(ci=_nested(400)),
    "a megabyte": _with(compared_with="x" * 2**20),
    "a megabyte of rules": _with(rules=DECISION["rules"] * 8000),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_decision_of_wrong_types_changes_nothing(server: Server, name: str, wrong: object) -> None:
    server.new_model(name, versions=1)
    answer = _move(server, name, wrong)
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "decision" in answer.json["message"]
    assert len(answer.json["message"]) < 500
    assert server.version(name, "1")["current_stage"] == "None"


def test_nesting_that_no_parser_survives_changes_nothing(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    body = json.dumps({"name": name, "version": "1", "stage": "Production", FIELD: 5})
    raw = body.replace("5}", "[" * 100_000 + "]" * 100_000 + "}").encode()
    assert server.send("POST", STAGE, raw=raw).status == 400
    assert server.version(name, "1")["current_stage"] == "None"


def test_largest_decision_is_kept_whole(server: Server, name: str) -> None:
    """In the entry it must fit a tag, whatever its characters need when they are escaped."""
    server.new_model(name, versions=1)
    rule = {"rule": "", "passed": True, "observed": "é" * 1000, "required": "", "figures": {}}
    decision = _with(figures={}, rules=[rule] * 10)
    decision["action"] += "x" * (LARGEST - len(json.dumps(decision, separators=(",", ":"))))
    assert _move(server, name, decision).status == 200
    [entry] = chain_of(server, name)
    assert entry["decision"] == decision
    decision["action"] += "x"
    assert _move(server, name, decision).status == 400


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_FIGURES = st.dictionaries(st.text(min_size=1, max_size=20), st.floats(), max_size=5)


def _places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, each in inside for place in _places(each, (*here, key)))]


def _read(raw: object) -> PromotionDecision | ProvenanceError | None:
    try:
        return PromotionDecision.read(raw)
    except ProvenanceError as refusal:
        return refusal


@given(place=st.sampled_from(_places(DECISION)), value=_JSON)
@settings(max_examples=400, deadline=None)
def test_any_json_anywhere_is_taken_whole_or_refused(place: tuple[Any, ...], value: Any) -> None:
    decision: Any = {"": copy.deepcopy(DECISION)}
    at, *rest = ("", *place)
    inside = decision
    for key in rest:
        inside, at = inside[at], key
    inside[at] = value
    read = _read(decision[""])
    if isinstance(read, ProvenanceError):
        assert (read.status, len(read.message) < 500) == (400, True)
        return
    if read is None:
        assert decision[""] is None
        return
    strict = json.loads(json.dumps(read.document, allow_nan=False))
    assert PromotionDecision.read(strict) is not None
    assert set(strict) == set(DECISION)


@given(figures=_FIGURES)
def test_figures_equal_themselves_and_nothing_else(figures: dict[str, float]) -> None:
    figures = {name.replace("\x00", ""): value for name, value in figures.items() if name.strip("\x00")}
    read = PromotionDecision.read(_with(figures=figures))
    assert read is not None
    read.check(figures, run_id="r")
    for name in figures:
        for other in (
            {**figures, name: 0.123456},
            {key: each for key, each in figures.items() if key != name},
        ):
            with pytest.raises(ProvenanceError, match="Nothing was changed"):
                read.check(other, run_id="r")
