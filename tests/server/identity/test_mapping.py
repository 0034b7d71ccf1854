"""Which IAM roles and groups have which role."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_aws_server.identity.mapping import RoleMap, RolePattern
from mlflow_aws_server.identity.roles import Role

_ACCOUNT = "arn:aws:iam::123456789012:role/"


@pytest.mark.parametrize(
    ("pattern", "arn"),
    [
        ("deploy", "deploy"),
        ("*", "deploy"),
        ("*", "team/a/deploy"),
        ("team/*", "team/a/b/c"),
        ("team/*/train", "team/a/b/train"),
        ("*-train-*", "a-train-b"),
        ("a*a", "aa"),
    ],
)
def test_pattern_matches(pattern: str, arn: str) -> None:
    assert RolePattern.parse(_ACCOUNT + pattern).matches(_ACCOUNT + arn)


@pytest.mark.parametrize(
    ("pattern", "arn"),
    [
        (_ACCOUNT + "deploy", _ACCOUNT + "deploy2"),
        (_ACCOUNT + "deploy", _ACCOUNT + "deplo"),
        (_ACCOUNT + "deploy", _ACCOUNT + "team/deploy"),
        (_ACCOUNT + "deploy", _ACCOUNT + "Deploy"),
        (_ACCOUNT + "deploy", _ACCOUNT + "deploy\n"),
        (_ACCOUNT + "team/*", _ACCOUNT + "teams/a"),
        (_ACCOUNT + "team/*", _ACCOUNT + "team"),
        (_ACCOUNT + "a*a", _ACCOUNT + "a"),
        (_ACCOUNT + "a*b*a", _ACCOUNT + "aba"[:2]),
        (_ACCOUNT + "d?ploy", _ACCOUNT + "deploy"),
        (_ACCOUNT + "[d]eploy", _ACCOUNT + "deploy"),
        (_ACCOUNT + "*", "arn:aws:iam::999999999999:role/deploy"),
        (_ACCOUNT + "*", "arn:aws-cn:iam::123456789012:role/deploy"),
        (_ACCOUNT + "*", "arn:aws:iam::123456789012:user/deploy"),
        (_ACCOUNT + "*", "arn:aws:sts::123456789012:assumed-role/deploy/session"),
    ],
)
def test_pattern_does_not_match(pattern: str, arn: str) -> None:
    assert not RolePattern.parse(pattern).matches(arn)


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "arn:aws:iam::*:role/deploy",
        "arn:aws:iam::12345678901*:role/deploy",
        "arn:*:iam::123456789012:role/deploy",
        "arn:aws:*::123456789012:role/deploy",
        "arn:aws:iam::123456789012:*/deploy",
        "arn:aws:iam::123456789012:role*",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:user/deploy",
        "arn:aws:sts::123456789012:assumed-role/deploy/session",
        "arn:aws:iam::123456789012:role/a b",
        " arn:aws:iam::123456789012:role/deploy",
    ],
)
def test_pattern_that_could_reach_another_account_or_service_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no full ARN of an IAM role"):
        RolePattern.parse(text)


@given(
    pieces=st.lists(st.text("ab/", max_size=3), min_size=1, max_size=4), filling=st.text("ab/", max_size=3)
)
def test_pattern_matches_whatever_fills_its_wildcards(pieces: list[str], filling: str) -> None:
    if not "*".join(pieces):
        return
    assert RolePattern.parse(_ACCOUNT + "*".join(pieces)).matches(_ACCOUNT + filling.join(pieces))


@given(name=st.text("ab*", min_size=1, max_size=6), arn=st.text("ab", max_size=8))
def test_pattern_agrees_with_the_plain_meaning_of_a_wildcard(name: str, arn: str) -> None:
    import re

    meant = re.fullmatch(".*".join(re.escape(piece) for piece in name.split("*")), arn) is not None
    assert RolePattern.parse(_ACCOUNT + name).matches(_ACCOUNT + arn) == meant


def test_highest_role_wins() -> None:
    roles = RoleMap.parse(
        json.dumps(
            {
                "viewer": {"iam_roles": [_ACCOUNT + "*"], "groups": ["staff", "leads"]},
                "approver": {"iam_roles": [_ACCOUNT + "lead"], "groups": ["leads"]},
            }
        )
    )
    assert roles.of_iam_role(_ACCOUNT + "lead") is Role.APPROVER
    assert roles.of_iam_role(_ACCOUNT + "other") is Role.VIEWER
    assert roles.of_groups(["staff", "leads"]) is Role.APPROVER
    assert roles.of_groups(["staff"]) is Role.VIEWER


def test_who_is_not_named_has_no_role() -> None:
    roles = RoleMap.parse("{}")
    assert roles.of_iam_role(_ACCOUNT + "any") is None
    assert roles.of_groups(["mlflow-admin"]) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("viewer", "is no JSON"),
        ("[]", "is no JSON object"),
        ('{"owner": {}}', "'owner' is no role"),
        ('{"Viewer": {}}', "'Viewer' is no role"),
        ('{"viewer": []}', "must be an object"),
        ('{"viewer": {"arns": []}}', "must be an object with iam_roles, groups or both"),
        ('{"viewer": {"iam_roles": "arn"}}', "must be a list of texts"),
        ('{"viewer": {"groups": [1]}}', "must be a list of texts"),
        ('{"viewer": {"groups": ["a b"]}}', "is no name of a group"),
        ('{"viewer": {"iam_roles": ["*"]}}', "is no full ARN"),
    ],
)
def test_mapping_that_says_something_else_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        RoleMap.parse(text)
