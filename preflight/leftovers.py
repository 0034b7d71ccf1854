"""Clears away what a failed first deployment left: `python -m preflight.leftovers ENV`, before `cdk deploy`.

And refuses, before anything is touched, to replace the database by an empty one.

A stack whose first creation failed can only be deleted. Termination and deletion protection refuse that,
though nothing of value is in it: nobody could ever use it. This lifts them, deletes the stack and waits. It
never touches a stack that was complete once.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from preflight.credentials import clients_of
from preflight.protection import Client, clients_by_stack, describe, protected_resources
from preflight.restored import refusal
from stacks.config_file import CONFIG, load_environment

# Reachable only from a first creation.
_NEVER_COMPLETE = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS")
_POLL = {"Delay": 5, "MaxAttempts": 720}
Say = Callable[[str], object]


def clear(stacks: Mapping[str, Client], say: Say = print) -> bool:
    """Delete those of the stacks that were never complete; returns whether they are gone.

    `say` is told what it does, and what it could not do.
    """
    for name, client in stacks.items():
        stack = describe(client("cloudformation"), name)
        if stack is not None and _was_never_complete(client("cloudformation"), stack):
            say(f"{name}: its first deployment failed ({stack['StackStatus']}), so it is removed")
            if not _delete(client, stack, say):
                return False
    return True


def _was_never_complete(cloudformation: Any, stack: dict[str, Any]) -> bool:
    if stack["StackStatus"] != "DELETE_FAILED":
        return stack["StackStatus"] in _NEVER_COMPLETE
    # Either an earlier attempt to clear it failed, or somebody deletes a stack that was in use.
    pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack["StackId"])
    return not any(
        event["PhysicalResourceId"] == stack["StackId"] and event["ResourceStatus"] == "CREATE_COMPLETE"
        for page in pages
        for event in page["StackEvents"]
        if event.get("PhysicalResourceId")
    )


def _delete(client: Client, stack: dict[str, Any], say: Say) -> bool:
    from botocore.exceptions import WaiterError

    cloudformation, name, arn = client("cloudformation"), stack["StackName"], stack["StackId"]
    for kind, physical_id in protected_resources(client, name):
        say(f"  {kind.called} {physical_id}: deletion protection off")
        kind.lift(client(kind.service), physical_id)
        if kind.service == "cognito-idp":
            # The template retains a pool, and this one is empty.
            client(kind.service).delete_user_pool(UserPoolId=physical_id)
    if stack.get("EnableTerminationProtection"):
        say(f"  {name}: termination protection off")
        cloudformation.update_termination_protection(StackName=name, EnableTerminationProtection=False)
    cloudformation.delete_stack(StackName=arn)
    try:
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=arn, WaiterConfig=_POLL)
    except WaiterError:
        say(f"  {name} could not be deleted. Remove what is named here, then deploy again:")
        for line in _reasons(cloudformation, arn, "DELETE_FAILED"):
            say(f"    {line}")
        return False
    for line in _reasons(cloudformation, arn, "DELETE_SKIPPED"):
        say(f"  kept, and of no stack any more: {line}")
    say(f"  {name}: deleted")
    return True


def _reasons(cloudformation: Any, arn: str, status: str) -> list[str]:
    pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=arn)
    found = {
        f"{event['ResourceType']} {event.get('PhysicalResourceId', '')}": event.get(
            "ResourceStatusReason", ""
        )
        for page in pages
        for event in page["StackEvents"]
        if event["ResourceStatus"] == status and event.get("PhysicalResourceId") != arn
    }
    return [f"{what}{f': {reason}' if reason else ''}" for what, reason in found.items()]


def main(arguments: Sequence[str]) -> int:
    """Return 1 if something is in the way of the next deployment."""
    environment = load_environment(name=arguments[0], path=None, directory=CONFIG)
    clients = functools.partial(clients_of, environment, os.environ)
    refused = refusal(clients(), arguments[0], environment.database)
    if refused:
        print(f"deploy: {refused}", file=sys.stderr)
        return 1
    return 0 if clear(clients_by_stack(arguments[0], environment, clients)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
