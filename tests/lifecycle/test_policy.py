"""A policy file that fits, and what is said about one that does not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from model_lifecycle.errors import PolicyError
from model_lifecycle.policy import LoadedPolicy, matches

_WHOLE = """\
version = 3
models = ["credit-*"]

[aliases]
staging = "next"
production = "best"

[transitions.staging]
from = ["None", "Archived"]

[transitions.production]
evidence = ["evidence/*.png"]
same_dataset = true

[[transitions.production.metrics]]
name = "log_loss"
direction = "lower"
maximum = 0.5
no_worse_than_current_by = 0

[transitions.production.approvers]
principals = ["arn:aws:iam::123456789012:role/ml/approver-*", "cognito:alice"]
roles = ["admin"]
other_than_trainer = true

[transitions.archived]
live = true
"""


def _load(tmp_path: Path, text: str) -> LoadedPolicy:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    return LoadedPolicy.load(file)


def _refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(PolicyError) as refused:
        _load(tmp_path, text)
    return str(refused.value)


def test_a_whole_policy_is_read(tmp_path: Path) -> None:
    policy = _load(tmp_path, _WHOLE).policy
    production = policy.transitions.production
    assert production is not None
    assert production.metrics[0].maximum == 0.5
    assert production.approvers.other_than_trainer
    assert policy.aliases.production == "best"
    assert policy.transitions.archived.live


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    assert _load(tmp_path, _WHOLE).sha256 == hashlib.sha256(_WHOLE.encode()).hexdigest()


def test_stages_follow_each_other_unless_the_policy_says_otherwise(tmp_path: Path) -> None:
    loaded = _load(tmp_path, _WHOLE)
    assert loaded.transition("staging", model="credit-risk").from_stages == ("None", "Archived")
    assert loaded.transition("production", model="credit-risk").from_stages == ("Staging",)


def test_a_policy_is_for_the_models_that_it_names(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r'models: \["credit-\*"\] does not match "churn"|does not match'):
        _load(tmp_path, _WHOLE).transition("staging", model="churn")


def test_a_move_that_the_policy_does_not_know_is_refused(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "version = 1\n[transitions.staging]\n")
    with pytest.raises(PolicyError, match=r"has no \[transitions\.production\]"):
        loaded.transition("production", model="any")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "version: is missing"),
        ("version = 0\n[transitions]\n", "version: 0"),
        ("version = 1\n[transitions.prod]\n", "transitions.prod: there is no such key"),
        ('version = 1\n[[transitions.staging.metrics]]\nname = "a"\ndirection = "up"\n', 'direction: "up"'),
        (
            'version = 1\n[[transitions.staging.metrics]]\nname = "a"\ndirection = "lower"\nminimum = 1\n',
            "the bound is called maximum",
        ),
        (
            'version = 1\n[[transitions.staging.metrics]]\nname = "a"\ndirection = "higher"\n',
            "asks for nothing",
        ),
        (
            'version = 1\n[[transitions.staging.metrics]]\nname = "a"\ndirection = "higher"\nminimum = nan\n',
            "minimum",
        ),
        (
            'version = 1\n[transitions.staging.approvers]\nprincipals = ["*"]\n',
            'principals: "*" is neither a full role ARN',
        ),
        (
            'version = 1\n[transitions.staging.approvers]\nprincipals = ["arn:aws:iam::*:role/x"]\n',
            "neither a full role ARN",
        ),
        ("version = [", "is not TOML"),
    ],
)
def test_a_fault_is_named_with_its_key_and_remedy(tmp_path: Path, text: str, words: str) -> None:
    said = _refusal(tmp_path, text)
    assert words in said
    assert "policy.toml" in said


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    said = _refusal(tmp_path, 'version = "x"\ncolour = 1\n[transitions]\n')
    assert "version:" in said
    assert "colour:" in said


def test_a_policy_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"nowhere\.toml: cannot be read"):
        LoadedPolicy.load(tmp_path / "nowhere.toml")


def test_only_the_star_is_special_in_a_principal() -> None:
    assert matches("arn:aws:iam::123456789012:role/ml/*", "arn:aws:iam::123456789012:role/ml/a/b")
    assert not matches("arn:aws:iam::123456789012:role/a.c", "arn:aws:iam::123456789012:role/abc")
    assert not matches("cognito:al", "cognito:alice")
