"""What goes to the server with a change, and what clients wrote beside it once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_lifecycle import LifecycleError, LoadedPolicy, decision
from model_lifecycle.rules import Finding

from tests.lifecycle.conftest import POLICY


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> LoadedPolicy:
    file: Path = tmp_path_factory.mktemp("policy") / "policy.toml"
    file.write_text(POLICY)
    return LoadedPolicy.load(file)


def _made(policy: LoadedPolicy, *findings: Finding, **figures: float) -> decision.Decision:
    return decision.of(
        "promote", policy=policy, findings=findings, figures=figures, compared_with=None, ci={"url": "x"}
    )


def test_a_decision_is_the_same_after_the_server_kept_it(policy: LoadedPolicy) -> None:
    rule = Finding("auc minimum", True, "inf", ">= 0.7", {"candidate": math.inf, "threshold": 0.7})
    made = _made(policy, rule, auc=math.inf)
    kept = json.loads(json.dumps(made.document(), allow_nan=False))
    assert decision.decision_of(kept) == made


def test_long_observations_are_shortened_until_the_server_takes_it(policy: LoadedPolicy) -> None:
    rules = [Finding(f"evidence {n}", True, "x" * 5000, "y" * 5000) for n in range(200)]
    made = _made(policy, *rules)
    assert len(json.dumps(made.document())) <= 64 * 1024
    assert len(made.rules) == 200
    assert made.rules[0].observed.endswith("…")


def test_a_policy_of_a_thousand_rules_is_refused_before_anything_changes(policy: LoadedPolicy) -> None:
    with pytest.raises(LifecycleError, match="too many rules"):
        _made(policy, *(Finding(f"rule {n}", True, "x" * 50, "y" * 50) for n in range(1000)))


# The fourth point, and more of its kind.
POISON: list[Any] = [
    {"event": ["x"]},
    {"policy": 5},
    {"policy": {"version": "<img src=x onerror=alert(1)>", "file": "f", "sha256": "s"}},
    {"rules": 5},
    {"rules": [5]},
    {"rules": [{"rule": ["x"], "passed": "yes"}]},
    {"ci": ["x"]},
    {"ci": {"url": "javascript:alert(1)"}},
    {"ci": {"url": 5}},
    {"stage": None},
    {"principal": {"a": 1}},
    {"at": 5},
    {"at": "x" * 90_000},
    {"action": "\x1b[2J\x1b[31m"},
    {"manifest_sha256": "f" * 64},
    {"figures": {"auc": {"a": []}}},
]
GOOD = {
    "action": "promote",
    "version": "1",
    "stage": "Production",
    "alias": "champion",
    "compared_with": "",
    "at": "2026-01-01T00:00:00+00:00",
    "event": "20260101T000000.000000Z-abcd",
    "principal": "cognito:ann",
    "role": "approver",
    "policy": {"file": "policy.toml", "version": 3, "sha256": "c" * 64},
    "rules": [{"rule": "auc", "passed": True, "observed": "1", "required": "1", "figures": {}}],
    "manifest_sha256": "d" * 64,
    "ci": None,
    "schema": 1,
}


def test_a_decision_of_an_older_client_is_read_as_a_claim() -> None:
    (claim,) = decision.claims({"lifecycle.decision.x": json.dumps(GOOD), "other": "1"})
    assert claim.decision is not None
    assert (claim.decision.stage, claim.decision.policy.version) == ("Production", 3)


@pytest.mark.parametrize("poison", POISON, ids=str)
def test_a_poisoned_claim_breaks_nothing(poison: dict[str, Any]) -> None:
    (claim,) = decision.claims({"lifecycle.decision.x": json.dumps({**GOOD, **poison})})
    made = claim.decision
    assert made is None or all(isinstance(each, str) for each in (made.action, made.stage, made.at))


@pytest.mark.parametrize("value", ["", "{", "[" * 100_000, "null", "5", '"x"', "9" * 10_000, "NaN"])
def test_a_claim_that_is_no_decision_is_named_all_the_same(value: str) -> None:
    claims = decision.claims({"lifecycle.decision.x": value, "lifecycle.manifest": value})
    assert claims == (
        decision.Claim("lifecycle.decision.x", None),
        decision.Claim("lifecycle.manifest", None),
    )


def test_a_flood_of_claims_is_cut_off() -> None:
    assert len(decision.claims({f"lifecycle.decision.{n}": "{}" for n in range(5000)})) == 50


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(GOOD)), inner),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), _json))
def test_no_claim_ends_in_a_traceback(parts: dict[str, Any]) -> None:
    decision.claims({"lifecycle.decision.x": json.dumps({**GOOD, **parts})})
    decision.decision_of({**GOOD, **parts})
