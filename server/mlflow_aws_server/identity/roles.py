"""The four roles, and who a verified caller is."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.IntEnum):
    """What a principal may do; a higher role may do all that a lower one may."""

    VIEWER = 1
    CONTRIBUTOR = 2
    APPROVER = 3
    ADMIN = 4

    def __str__(self) -> str:
        return self.name.lower()


class Lane(enum.StrEnum):
    """How a caller proved who it is: a program by an IAM role's token, a person by signing in."""

    IAM = "iam"
    COGNITO = "cognito"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A verified caller: `name` is the IAM role's ARN or `cognito:USERNAME`."""

    name: str
    role: Role
    lane: Lane
