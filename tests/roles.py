"""The server's `MLFLOW_AWS_ROLES`, with the permissions of the deployment's own table of roles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from stacks.roles import BY_NAME, ROLES


def server_roles(members: Mapping[str, Mapping[str, Iterable[str]]]) -> str:
    """The JSON text, with these members of the roles that are named."""
    return json.dumps(
        {role.name: {"permissions": role.permissions, **members.get(role.name, {})} for role in ROLES}
    )


def permissions(role: str) -> frozenset[str]:
    """What this role of the table permits."""
    return frozenset(BY_NAME[role].permissions)
