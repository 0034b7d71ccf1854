"""The roles, and which IAM roles and groups have them: `MLFLOW_AWS_ROLES`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_aws_server.identity.roles import Permission, Role

# IAM's own rules for ARNs, paths and names of roles (IAM API reference, CreateRole).
_ROLE_ARN = re.compile(r"(arn:aws[a-z-]*:iam::\d{12}:role/)([\x21-\x7e]{1,576})")
_GROUP = re.compile(r"[^\s\x00-\x1f\x7f]{1,128}")
_ROLE_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_OWN_MODELS = re.compile(r"[a-z][a-z0-9-]{2,62}-")
_KEYS = ("permissions", "iam_roles", "groups", "own_models")
_PERMISSIONS = ", ".join(Permission)


@dataclass(frozen=True, slots=True)
class RolePattern:
    """The ARN of an IAM role, in which `*` stands for any characters after `:role/`, and only there."""

    prefix: str
    pieces: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> RolePattern:
        """Read a pattern.

        Raises:
            ValueError: it is not the full ARN of an IAM role, or has a wildcard before `:role/`.
        """
        match = _ROLE_ARN.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is not the full ARN of an IAM role (arn:aws:iam::123456789012:role/NAME; "
                "a * may stand only after :role/)"
            )
        return cls(match[1], tuple(match[2].split("*")))

    def matches(self, arn: str) -> bool:
        """Whether the whole of `arn` is what the pattern says, upper and lower case kept apart."""
        if not arn.startswith(self.prefix):
            return False
        name = arn[len(self.prefix) :]
        first, *rest = self.pieces
        if not rest:
            return name == first
        *middle, last = rest
        if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
            return False
        start, end = len(first), len(name) - len(last)
        for piece in middle:
            found = name.find(piece, start, end)
            if found < 0:
                return False
            start = found + len(piece)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleMap:
    """The roles, and who has which. Callers that match none have none."""

    roles: tuple[Role, ...]
    patterns: tuple[tuple[RolePattern, Role], ...]
    groups: tuple[tuple[str, Role], ...]

    @classmethod
    def parse(cls, text: str) -> RoleMap:
        """Read the JSON text of `MLFLOW_AWS_ROLES`.

        Raises:
            ValueError: it does not say what each role permits, and which IAM roles and groups have it.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ValueError(f"it is not JSON ({error})") from None
        if not isinstance(document, dict):
            raise ValueError("it is not a JSON object")
        roles: list[Role] = []
        patterns: list[tuple[RolePattern, Role]] = []
        groups: list[tuple[str, Role]] = []
        for name, entry in document.items():
            if not _ROLE_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not the name of a role (lower-case letters, digits and hyphens)"
                )
            role = Role(
                name=name,
                permissions=frozenset(map(_permission, _texts(entry, name, "permissions"))),
                own_models=_own_models(entry, name),
            )
            if not role.permissions:
                raise ValueError(f"{name}.permissions is empty; give it some of {_PERMISSIONS}")
            roles.append(role)
            patterns += [(RolePattern.parse(arn), role) for arn in _texts(entry, name, "iam_roles")]
            for group in _texts(entry, name, "groups"):
                if not _GROUP.fullmatch(group):
                    raise ValueError(f"{group!r} is not the name of a group (1 to 128 characters, no space)")
                groups.append((group, role))
        return cls(roles=tuple(roles), patterns=tuple(patterns), groups=tuple(groups))

    def of_iam_role(self, arn: str) -> tuple[Role, ...]:
        """Every role with a pattern that matches."""
        return _once(role for pattern, role in self.patterns if pattern.matches(arn))

    def of_groups(self, groups: Iterable[str]) -> tuple[Role, ...]:
        """Every role of these groups."""
        members = frozenset(groups)
        return _once(role for group, role in self.groups if group in members)

    def giving(self, permission: Permission) -> list[str]:
        """The names of the roles that give `permission`."""
        return [role.name for role in self.roles if permission in role.permissions]


def _once(roles: Iterable[Role]) -> tuple[Role, ...]:
    return tuple(dict.fromkeys(roles))


def _permission(text: str) -> Permission:
    try:
        return Permission(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a permission; expected one of {_PERMISSIONS}") from None


def _own_models(entry: Mapping[str, Any], role: str) -> str:
    if "own_models" not in entry:
        return ""
    prefix = entry["own_models"]
    if not isinstance(prefix, str) or not _OWN_MODELS.fullmatch(prefix):
        raise ValueError(f"{role}.own_models must be what the names of its models begin with")
    return prefix


def _texts(entry: Any, role: str, key: str) -> list[str]:
    if not isinstance(entry, dict) or not entry.keys() <= set(_KEYS):
        raise ValueError(f"{role} must be an object with {', '.join(_KEYS)} and nothing else")
    texts = entry.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{role}.{key} must be a list of texts")
    return texts
