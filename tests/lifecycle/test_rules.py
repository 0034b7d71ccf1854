"""Each rule alone: facts in, a finding out."""

from __future__ import annotations

import math
from typing import Any

import pytest
from model_lifecycle.evidence import Damage, Integrity, Verdict
from model_lifecycle.policy import Transition
from model_lifecycle.rules import Approver, Facts, Figures, Finding, evaluate

ANN = Approver("arn:aws:iam::123456789012:role/ann", "approver", "iam")


def _judge(policy: dict[str, Any], **facts: Any) -> tuple[Finding, ...]:
    known: dict[str, Any] = {
        "candidate": Figures("2", {"auc": 0.8}),
        "stage": "Staging",
        "current": None,
        "approver": ANN,
    }
    return evaluate(Transition.model_validate({"manifest": False, **policy}), Facts(**{**known, **facts}))


def _metric(**more: Any) -> dict[str, Any]:
    return {"metrics": [{"name": "auc", "direction": "higher", **more}]}


def test_a_figure_at_its_minimum_is_enough() -> None:
    assert [each.passed for each in _judge(_metric(minimum=0.8))] == [True]


def test_a_figure_below_its_minimum_is_named_with_both_numbers() -> None:
    (finding,) = _judge(_metric(minimum=0.81))
    assert not finding.passed
    assert (finding.observed, finding.required) == ("0.8", ">= 0.81")


def test_a_figure_that_is_not_measured_keeps_no_rule() -> None:
    findings = _judge(_metric(minimum=0.1, no_worse_than_current_by=1), candidate=Figures("2", {}))
    assert [each.passed for each in findings] == [False, False]


def test_a_figure_that_is_no_number_keeps_no_rule() -> None:
    nan = Figures("2", {"auc": math.nan})
    current = Figures("1", {"auc": 0.1})
    findings = _judge(_metric(minimum=-1, no_worse_than_current_by=1), candidate=nan, current=current)
    assert [each.passed for each in findings] == [False, False]


def test_a_version_may_be_worse_than_the_current_one_by_the_tolerance_and_no_more() -> None:
    policy = _metric(no_worse_than_current_by=0.25)
    assert _judge(policy, current=Figures("1", {"auc": 1.05}))[0].passed
    assert not _judge(policy, current=Figures("1", {"auc": 1.06}))[0].passed


def test_where_lower_is_better_the_tolerance_goes_up() -> None:
    policy = {"metrics": [{"name": "auc", "direction": "lower", "no_worse_than_current_by": 0.25}]}
    assert _judge(policy, current=Figures("1", {"auc": 0.55}))[0].passed
    assert not _judge(policy, current=Figures("1", {"auc": 0.54}))[0].passed


def test_a_current_version_without_the_figure_cannot_be_compared_with() -> None:
    (finding,) = _judge(_metric(no_worse_than_current_by=0), current=Figures("1", {}))
    assert not finding.passed
    assert finding.observed == "version 1 has no auc"


def test_figures_of_different_data_are_not_compared_where_the_policy_says_so() -> None:
    candidate = Figures("2", {"auc": 0.9}, frozenset({"b"}))
    current = Figures("1", {"auc": 0.8}, frozenset({"a"}))
    policy = _metric(no_worse_than_current_by=0)
    assert _judge(policy, candidate=candidate, current=current)[0].passed
    assert not _judge({**policy, "same_dataset": True}, candidate=candidate, current=current)[0].passed


def test_every_broken_rule_is_reported_not_only_the_first() -> None:
    findings = _judge(
        {
            **_metric(minimum=0.9),
            "from": ["None"],
            "evidence": ["report.html"],
            "approvers": {"roles": ["admin"]},
        }
    )
    assert [each.rule for each in findings if not each.passed] == [
        "comes from",
        "auc minimum",
        "evidence report.html",
        "approver",
    ]


def test_evidence_is_matched_by_its_path() -> None:
    findings = _judge({"evidence": ["plots/*.png"]}, artifacts=frozenset({"plots/roc.png", "roc.png"}))
    assert (findings[0].passed, findings[0].observed) == (True, "plots/roc.png")


def _integrity(verdict: Verdict, note: str = "", *damage: Damage) -> Integrity:
    return Integrity(verdict, note, "2026-01-01T00:00:00+00:00", damage=damage)


def test_sealed_files_that_are_intact_keep_the_rule() -> None:
    (finding,) = _judge({"manifest": True}, integrity=_integrity("intact", "2 files"))
    assert (finding.rule, finding.passed, finding.observed) == ("sealed and unchanged", True, "2 files")


def test_changed_files_are_named() -> None:
    tampered = _integrity("tampered", "1 of 2", Damage("model.skops", "overwritten"))
    (finding,) = _judge({"manifest": True}, integrity=tampered)
    assert (finding.passed, finding.observed) == (False, "1 of 2; model.skops was overwritten")


@pytest.mark.parametrize("verdict", ["tampered", "not sealed", "unreadable", "not verified"])
def test_files_of_which_s3_did_not_say_that_they_are_intact_are_no_evidence(verdict: Verdict) -> None:
    (finding,) = _judge({"manifest": True}, integrity=_integrity(verdict, "AccessDenied"))
    assert (finding.passed, finding.observed) == (False, "AccessDenied")


@pytest.mark.parametrize(("verdict", "kept"), [("not sealed", True), ("tampered", False)])
def test_what_the_server_seals_before_it_moves_need_not_be_sealed_yet(verdict: Verdict, kept: bool) -> None:
    (finding,) = _judge({"manifest": True}, integrity=_integrity(verdict), sealed_next=True)
    assert finding.passed is kept


def test_an_approver_is_known_by_principal_or_by_role() -> None:
    by_name = {"approvers": {"principals": ["arn:aws:iam::123456789012:role/a*"]}}
    assert _judge(by_name)[0].passed
    assert _judge({"approvers": {"roles": ["approver"]}})[0].passed
    assert not _judge({"approvers": {"principals": ["cognito:ann"], "roles": ["admin"]}})[0].passed


def test_an_unverified_caller_is_nobodys_approver() -> None:
    assert not _judge({"approvers": {"roles": ["approver"]}}, approver=None)[0].passed


def test_four_eyes_keep_a_maker_from_approving() -> None:
    policy = {"approvers": {"other_than_trainer": True}}
    assert _judge(policy, makers=frozenset({"cognito:bob"}))[0].passed
    assert not _judge(policy, makers=frozenset({"cognito:bob", ANN.principal}))[0].passed


def test_four_eyes_need_a_known_maker() -> None:
    assert not _judge({"approvers": {"other_than_trainer": True}}, makers=frozenset())[0].passed
