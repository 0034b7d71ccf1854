"""Changes of registered models by a role that has models of its own, and may touch no others."""

from __future__ import annotations

import json
from typing import Any

from mlflow_aws_server.asgi import Receive, replay
from mlflow_aws_server.identity.access import Route
from mlflow_aws_server.identity.errors import PermissionDeniedError
from mlflow_aws_server.identity.roles import Principal

_PLACES = ("registered-models", "model-versions")
# Names, a stage, tags: far less. `Budgets` are behind the gate.
_LONGEST_BODY = 64 * 1024


def concerns(route: Route) -> bool:
    """Whether a route changes a registered model or a version of one."""
    return route.changes and route.path.partition("/mlflow/")[2].partition("/")[0] in _PLACES


async def require_own(principal: Principal, receive: Receive) -> Receive:
    """The request's body to be received again, if each name in it begins as the principal's own models do.

    Raises:
        PermissionDeniedError: it names another model, or cannot be read in one way only.
    """
    body = b""
    more = True
    while more and len(body) <= _LONGEST_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
    names = [] if len(body) > _LONGEST_BODY else _names(body)
    if not names or not all(name.startswith(principal.own_models) for name in names):
        raise PermissionDeniedError(
            "own-models",
            f"{principal.name} is {principal.role}, and changes only models whose names begin with "
            f"{principal.own_models}.",
        )
    return replay(body, receive)


def _names(body: bytes) -> list[str]:
    """The names in a JSON object; none if it is something else, or says one thing twice."""
    try:
        document = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    names = [document.get("name"), *([document["new_name"]] if "new_name" in document else [])]
    # Protobuf's JSON has a second spelling.
    if "newName" in document or not all(isinstance(name, str) for name in names):
        return []
    return [str(name) for name in names]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found
