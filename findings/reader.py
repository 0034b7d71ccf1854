"""Asks AWS, each question once, and tells a refusal from an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

# From the name of a service to its boto3 client: `boto3.Session(...).client` is one.
Clients = Callable[[str], Any]

# Where the name of the permission is not the operation's.
_ACTIONS: Mapping[str, str] = {
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:GetBucketReplication": "s3:GetReplicationConfiguration",
    "s3:GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
}
_PREFIXES: Mapping[str, str] = {"elbv2": "elasticloadbalancing", "service-quotas": "servicequotas"}
_DENIED = ("AccessDenied", "UnauthorizedOperation", "AuthorizationError", "NotAuthorized")
_UNKNOWN = ("InvalidAction", "UnknownOperation", "NotImplemented", "UnsupportedOperation")


class DeniedError(Exception):
    """The caller may not ask this; `action` is the permission that is missing."""

    def __init__(self, action: str) -> None:
        super().__init__(f"denied: {action}")
        self.action = action


class NotAskedError(Exception):
    """This API has no such question, or the question has no meaning here."""


class AbsentError(Exception):
    """AWS has an error for an answer, such as that something does not exist; `code` names it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class AccountReader:
    """Answers of one account; `actions` are the permissions that the questions needed."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._answers: dict[str, Any] = {}
        self.actions: set[str] = set()

    def ask(self, service: str, operation: str, **parameters: Any) -> Any:
        """The answer, with all its pages; the same question is asked once.

        Raises:
            DeniedError, NotAskedError, AbsentError: there is no answer.
        """
        key = json.dumps([service, operation, parameters], sort_keys=True)
        if key not in self._answers:
            try:
                self._answers[key] = self._asked(service, operation, parameters)
            except (DeniedError, NotAskedError, AbsentError) as error:
                self._answers[key] = error
        answer = self._answers[key]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _asked(self, service: str, operation: str, parameters: Mapping[str, Any]) -> Any:
        from botocore.exceptions import ClientError

        client = self._clients(service)
        action = action_of(service, client.meta.method_to_api_mapping[operation])
        self.actions.add(action)
        try:
            if client.can_paginate(operation):
                return client.get_paginator(operation).paginate(**parameters).build_full_result()
            return getattr(client, operation)(**parameters)
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            if code.startswith(_DENIED):
                raise DeniedError(action) from error
            if code.startswith(_UNKNOWN):
                raise NotAskedError(f"this API does not know {action}") from error
            raise AbsentError(code, message) from error


def action_of(service: str, operation: str) -> str:
    """The IAM action that an operation of the API needs."""
    named = f"{_PREFIXES.get(service, service)}:{operation}"
    return _ACTIONS.get(named, named)
