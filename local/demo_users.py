"""The people of the laptop's user pool: one for each role, with a password made up in this run."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping

from local.parts.aws import Aws
from stacks.roles import ROLES

Users = Mapping[str, Mapping[str, str]]
_LENGTH = 20
# Told apart when read from a screen.
_KINDS = (
    string.ascii_lowercase.replace("l", ""),
    string.ascii_uppercase.replace("I", "").replace("O", ""),
    "23456789",
    "-_.+",
)


def create(aws: Aws, pool_id: str) -> Users:
    """Create the users, each in the group of the role that it is named after; returns their passwords."""
    cognito = aws.client("cognito-idp")
    users = {role.name: {"username": role.name, "password": password()} for role in ROLES}
    for role in ROLES:
        user = users[role.name]
        name = {"UserPoolId": pool_id, "Username": user["username"]}
        cognito.admin_create_user(
            **name,
            MessageAction="SUPPRESS",
            TemporaryPassword=password(),
            UserAttributes=[
                {"Name": "email", "Value": f"{role.name}@example.com"},
                {"Name": "email_verified", "Value": "true"},
            ],
        )
        cognito.admin_set_user_password(**name, Password=user["password"], Permanent=True)
        cognito.admin_add_user_to_group(**name, GroupName=role.group)
    return users


def password() -> str:
    """A new password of 20 characters that has all kinds that the pool asks for."""
    alphabet = "".join(_KINDS)
    while True:
        made = "".join(secrets.choice(alphabet) for _ in range(_LENGTH))
        if all(set(made) & set(kind) for kind in _KINDS):
            return made
