"""Policies are compared by what they allow and deny, however they are spelled."""

from __future__ import annotations

from typing import Any

import pytest

from verify_account.policies import differences
from verify_account.templates import UNKNOWN, agrees

READ = {
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
    "Action": "s3:GetObject",
    "Resource": ["arn:aws:s3:::b/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "true"}},
}
DENY = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}


@pytest.mark.parametrize(
    "spelling",
    [
        {"Action": ["s3:getobject"]},
        {"Resource": "arn:aws:s3:::b/*"},
        {"Principal": {"AWS": ["111122223333"]}},
        {"Condition": {"Bool": {"aws:SecureTransport": True}}},
        {"Sid": "Named"},
    ],
)
def test_another_spelling_of_a_statement_is_the_same_statement(spelling: dict[str, Any]) -> None:
    assert differences([READ], [{**READ, **spelling}]) == []


@pytest.mark.parametrize(
    "wider",
    [
        {"Action": ["s3:GetObject", "s3:PutObject"]},
        {"Action": "s3:*"},
        {"Resource": "*"},
        {"Principal": "*"},
        {"Principal": {"AWS": "arn:aws:iam::111122223333:root", "Service": "ec2.amazonaws.com"}},
        {"Principal": {"AWS": ["111122223333", "444455556666"]}},
        {"Condition": {}},
        {"Condition": {"Bool": {"aws:SecureTransport": "false"}}},
    ],
)
def test_a_wider_statement_is_told(wider: dict[str, Any]) -> None:
    assert len(differences([READ], [{**READ, **wider}])) == 1


def test_a_statement_that_was_added_is_told_unless_it_denies() -> None:
    assert len(differences([], [READ])) == 1
    assert differences([], [DENY]) == []


def test_a_statement_that_is_gone_is_told_if_it_denied() -> None:
    assert len(differences([DENY], [])) == 1
    assert differences([READ], []) == []


def test_what_aws_chose_agrees_with_anything_and_the_rest_with_itself() -> None:
    assert agrees(f"arn:aws:s3:::{UNKNOWN}/x", "arn:aws:s3:::chosen/x")
    assert not agrees(f"arn:aws:s3:::{UNKNOWN}/x", "arn:aws:s3:::chosen/y")
    assert agrees({"Port": 443}, {"Port": "443", "Arn": "chosen"})
    assert not agrees({"Port": 443}, {"Arn": "chosen"})
    assert not agrees(["a", "b"], ["a", "c"])
