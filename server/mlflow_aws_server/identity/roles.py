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
    """A name for permissions in a place.

    With `own_models`, it does to models whose names begin so whatever can be done, and changes no others.
    """

    name: str
    permissions: frozenset[Permission]
    place: Place = Place.DEPLOYMENT
    own_models: str = ""


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

    @property
    def own_models(self) -> str:
        """What the names of the only models begin with that it changes; empty if others are not kept from it.

        Who has another role, too, may do what that permits.
        """
        return self.roles[0].own_models if len(self.roles) == 1 else ""


def rights(principal: Principal, place: Place) -> frozenset[Permission]:
    """What `principal` may do in `place`: whatever one of its roles permits there."""
    return frozenset().union(*(role.permissions for role in principal.roles if role.place is place))
