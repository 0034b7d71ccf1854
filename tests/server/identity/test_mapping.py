"""Which IAM roles and groups have which role."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_aws_server.identity.mapping import RoleMap, RolePattern
from mlflow_aws_server.identity.roles import Lane, Permission, Place, Principal, Role, rights

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
    with pytest.raises(ValueError, match="is not the full ARN of an IAM role"):
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


_SEVERAL = json.dumps(
    {
        "viewer": {
            "permissions": ["read"],
            "iam_roles": [_ACCOUNT + "*"],
            "groups": ["staff", "leads"],
        },
        "approver": {
            "permissions": ["read", "write", "approve"],
            "iam_roles": [_ACCOUNT + "lead"],
            "groups": ["leads"],
        },
        "auditor": {"permissions": ["read", "audit"], "groups": ["auditors"]},
    }
)


def _names(roles: tuple[Role, ...]) -> list[str]:
    return [role.name for role in roles]


def test_a_principal_has_every_role_that_matches_and_each_once() -> None:
    roles = RoleMap.parse(_SEVERAL)
    assert _names(roles.of_iam_role(_ACCOUNT + "lead")) == ["viewer", "approver"]
    assert _names(roles.of_iam_role(_ACCOUNT + "other")) == ["viewer"]
    assert _names(roles.of_groups(["leads", "staff", "elsewhere"])) == ["viewer", "approver"]
    assert _names(roles.of_groups(["auditors", "staff"])) == ["viewer", "auditor"]


def test_a_principal_s_rights_are_those_of_all_its_roles() -> None:
    roles = RoleMap.parse(_SEVERAL)
    both = Principal(name="someone", roles=roles.of_groups(["leads", "auditors"]), lane=Lane.COGNITO)
    assert rights(both, Place.DEPLOYMENT) == {"read", "write", "approve", "audit"}


def test_the_role_that_people_are_told_is_the_last_of_the_table() -> None:
    roles = RoleMap.parse(_SEVERAL)

    def shown(*groups: str) -> str:
        return Principal(name="someone", roles=roles.of_groups(groups), lane=Lane.COGNITO).role

    assert shown("staff") == "viewer"
    assert shown("leads") == "approver"
    assert shown("auditors", "leads") == "auditor"


def test_roles_that_give_a_permission_are_named_in_the_order_of_the_table() -> None:
    roles = RoleMap.parse(_SEVERAL)
    assert roles.giving(Permission.READ) == ["viewer", "approver", "auditor"]
    assert roles.giving(Permission.ADMINISTER) == []


def test_who_is_not_named_has_no_role() -> None:
    roles = RoleMap.parse("{}")
    assert roles.of_iam_role(_ACCOUNT + "any") == ()
    assert roles.of_groups(["mlflow-admin"]) == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("viewer", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"owner": {}}', r"owner.permissions is empty; give it some of read, audit, write"),
        ('{"Viewer": {}}', "'Viewer' is not the name of a role"),
        ('{"viewer": []}', "must be an object"),
        (
            '{"viewer": {"arns": []}}',
            "must be an object with permissions, iam_roles, groups, own_models and nothing else",
        ),
        ('{"viewer": {"permissions": "read"}}', "must be a list of texts"),
        ('{"viewer": {"permissions": ["raed"]}}', "'raed' is not a permission; expected one of read, audit"),
        ('{"viewer": {"permissions": ["read"], "iam_roles": "arn"}}', "must be a list of texts"),
        ('{"viewer": {"permissions": ["read"], "groups": [1]}}', "must be a list of texts"),
        ('{"viewer": {"permissions": ["read"], "groups": ["a b"]}}', "is not the name of a group"),
        ('{"viewer": {"permissions": ["read"], "iam_roles": ["*"]}}', "is not the full ARN"),
        (
            '{"canary": {"permissions": ["read"], "own_models": ""}}',
            "what the names of its models begin with",
        ),
        ('{"canary": {"permissions": ["read"], "own_models": ["a-"]}}', "names of its models begin with"),
    ],
)
def test_mapping_that_says_something_else_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        RoleMap.parse(text)
