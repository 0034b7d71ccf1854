"""The endpoint where a task fetches credentials of its own role, as the ECS agent offers it.

MiniStack's own endpoint returns invented keys of a role that does not exist. This one returns a session of
the role in the task definition, so that IAM policies apply to the server as they will in AWS.
"""

from __future__ import annotations

import datetime as dt
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# As in ECS, about an hour; SDKs ask again before the end.
_LIFETIME_SECONDS = 3600


@dataclass(frozen=True)
class _Task:
    role_arn: str
    session_name: str
    token: str


class TaskCredentials:
    """Which task may fetch which role's credentials: by an unguessable path and a token in the header."""

    def __init__(self, issue: Callable[[str, str, int], Mapping[str, str]]) -> None:
        self._issue = issue
        self._tasks: dict[str, _Task] = {}
        self._lock = threading.Lock()

    def admit(self, *, role_arn: str, session_name: str) -> tuple[str, str]:
        """Admit a task; returns its path and the token it must send as `Authorization`."""
        path, token = f"/v2/credentials/{secrets.token_urlsafe(24)}", secrets.token_urlsafe(32)
        with self._lock:
            self._tasks[path] = _Task(role_arn, session_name, token)
        return path, token

    def answer(self, path: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str]]:
        """The status and the document for a GET of `path`."""
        with self._lock:
            task = self._tasks.get(path)
        supplied = next((value for name, value in headers.items() if name.lower() == "authorization"), "")
        if task is None or not hmac.compare_digest(supplied.encode(), task.token.encode()):
            return 403, {"code": "AccessDenied", "message": "the token does not belong to this task"}
        return 200, self._issue(task.role_arn, task.session_name, _LIFETIME_SECONDS)


def issue_session(role_arn: str, session_name: str, lifetime: int) -> Mapping[str, str]:
    """Register a new session of a role in the emulator, and return it as ECS would.

    Raises:
        LookupError: there is no such role, or it does not trust ECS tasks.
    """
    from ministack.services import iam, sts

    account_id, role_name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    role = iam._roles.get_scoped(account_id, None, role_name)
    if role is None or not _trusts_tasks(role.get("AssumeRolePolicyDocument")):
        raise LookupError(f"{role_arn} does not exist or does not trust ecs-tasks.amazonaws.com")
    access_key, secret, token = iam._gen_session_access_key(), iam._gen_secret(), iam._gen_session_token()
    expires = time.time() + lifetime
    sts.register_session(
        access_key,
        {
            "Arn": f"arn:aws:sts::{account_id}:assumed-role/{role_name}/{session_name}",
            "UserId": f"{role.get('RoleId', role_name)}:{session_name}",
            "AccountId": account_id,
            "PrincipalType": "AssumedRole",
            "SecretAccessKey": secret,
            "SessionToken": token,
            "Expiration": expires,
        },
    )
    return {
        "RoleArn": role_arn,
        "AccessKeyId": access_key,
        "SecretAccessKey": secret,
        "Token": token,
        "Expiration": dt.datetime.fromtimestamp(expires, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _trusts_tasks(document: Any) -> bool:
    policy = json.loads(document) if isinstance(document, str) else (document or {})
    statements = policy.get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        services = (statement.get("Principal") or {}).get("Service", [])
        services = [services] if isinstance(services, str) else services
        if statement.get("Effect") == "Allow" and "ecs-tasks.amazonaws.com" in services:
            return True
    return False
