"""Which IAM roles and which groups have which role: `MLFLOW_AWS_ROLES`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_aws_server.identity.roles import Role

# IAM's own rules for ARNs, paths and names of roles (IAM API reference, CreateRole).
_ROLE_ARN = re.compile(r"(arn:aws[a-z-]*:iam::\d{12}:role/)([\x21-\x7e]{1,576})")
_GROUP = re.compile(r"[^\s\x00-\x1f\x7f]{1,128}")
_KEYS = frozenset(("iam_roles", "groups"))


@dataclass(frozen=True, slots=True)
class RolePattern:
    """The ARN of an IAM role, in which `*` stands for any characters behind `:role/`, and only there."""

    prefix: str
    pieces: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> RolePattern:
        """Read a pattern.

        Raises:
            ValueError: it is no full ARN of an IAM role, or has a wildcard before `:role/`.
        """
        match = _ROLE_ARN.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is no full ARN of an IAM role (arn:aws:iam::123456789012:role/NAME; "
                "a * may stand behind :role/ only)"
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
    """Who has which role. Whoever is not named has none."""

    patterns: tuple[tuple[Role, RolePattern], ...]
    groups: Mapping[str, Role]

    @classmethod
    def parse(cls, text: str) -> RoleMap:
        """Read the JSON text of `MLFLOW_AWS_ROLES`.

        Raises:
            ValueError: it says something else than which IAM roles and groups have which role.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ValueError(f"it is no JSON ({error})") from None
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        patterns: list[tuple[Role, RolePattern]] = []
        groups: dict[str, Role] = {}
        for name, members in document.items():
            role = _role(name)
            for arn in _texts(members, name, "iam_roles"):
                patterns.append((role, RolePattern.parse(arn)))
            for group in _texts(members, name, "groups"):
                if not _GROUP.fullmatch(group):
                    raise ValueError(f"{group!r} is no name of a group (1 to 128 characters, no space)")
                groups[group] = max(role, groups.get(group, role))
        return cls(patterns=tuple(sorted(patterns, key=lambda pair: -pair[0])), groups=groups)

    def of_iam_role(self, arn: str) -> Role | None:
        """The highest role whose patterns match, or None."""
        return next((role for role, pattern in self.patterns if pattern.matches(arn)), None)

    def of_groups(self, groups: Iterable[str]) -> Role | None:
        """The highest role of these groups, or None."""
        return max((self.groups[group] for group in groups if group in self.groups), default=None)


def _role(name: str) -> Role:
    for role in Role:
        if str(role) == name:
            return role
    raise ValueError(f"{name!r} is no role ({', '.join(str(role) for role in Role)})")


def _texts(members: Any, role: str, key: str) -> list[str]:
    if not isinstance(members, dict) or not members.keys() <= _KEYS:
        raise ValueError(f"{role} must be an object with iam_roles, groups or both")
    texts = members.get(key, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{role}.{key} must be a list of texts")
    return texts
