"""What a verified caller may do, and where: roles are data, permissions are what the server knows."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Permission(enum.StrEnum):
    """What a route needs, the least demanding first. Which role gives it is configuration."""

    READ = "read"
    AUDIT = "audit"
    WRITE = "write"
    APPROVE = "approve"
    ADMINISTER = "administer"

    @property
    def changes(self) -> bool:
        """Whether its routes change what MLflow keeps."""
        return self not in (Permission.READ, Permission.AUDIT)


class Place(enum.Enum):
    """Where a permission holds. Today there is one place, the whole deployment."""

    DEPLOYMENT = "deployment"


class Lane(enum.StrEnum):
    """How a caller proved who it is: a program by an IAM role's token, a person by signing in."""

    IAM = "iam"
    COGNITO = "cognito"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A name for permissions in a place."""

    name: str
    permissions: frozenset[Permission]
    place: Place = Place.DEPLOYMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A verified caller: `name` is the IAM role's ARN or `cognito:USERNAME`; it has at least one role."""

    name: str
    roles: tuple[Role, ...]
    lane: Lane

    @property
    def role(self) -> str:
        """The one of its roles that people are told: the last in the table's order."""
        return self.roles[-1].name


def rights(principal: Principal, place: Place) -> frozenset[Permission]:
    """What `principal` may do in `place`: whatever one of its roles permits there."""
    return frozenset().union(*(role.permissions for role in principal.roles if role.place is place))
