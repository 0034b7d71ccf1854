"""Says what `make destroy` removes and what refuses: `python -m preflight.removal ENV STACKS`.

Reads only. Exit code 2, with the settings to change, if something is protected.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping, Sequence

from preflight.credentials import clients_of
from preflight.protection import Client, clients_by_stack, describe, protected_resources, resources
from stacks.config_file import CONFIG, load_environment

_GOES = {
    "Service": "tasks, load balancer and certificate go; runs, models and people stay in the foundation",
    "Foundation": "network and database go; a snapshot, the buckets, the keys and the user pool "
    "stay in the account",
    "Recovery": "only the stack goes: the vault, the replica and their keys stay in the second region",
}


def refusals(stacks: Mapping[str, Client]) -> list[str]:
    """What would refuse to be deleted with these stacks, each with the setting that protects it."""
    found = []
    for name, client in stacks.items():
        stack = describe(client("cloudformation"), name)
        if stack is None:
            continue
        if stack.get("EnableTerminationProtection"):
            found.append(f"{name}: termination_protection")
        found += [
            f"{kind.called} {physical_id}: {kind.setting}"
            for kind, physical_id in protected_resources(client, name)
            if kind.setting  # what has no such setting outlives its stack
        ]
    return found


def attachments(stacks: Mapping[str, Client]) -> list[str]:
    """The stacks' policies that somebody attached to principals of their own; IAM keeps them until then."""
    own: set[str] = set()
    policies = []
    for name, client in stacks.items():
        if describe(client("cloudformation"), name) is None:
            continue
        for kind, physical_id in resources(client, name):
            if kind == "AWS::IAM::Role":
                own.add(physical_id)
            elif kind == "AWS::IAM::ManagedPolicy":
                policies.append((client, physical_id))
    found = []
    for client, arn in policies:
        pages = client("iam").get_paginator("list_entities_for_policy").paginate(PolicyArn=arn)
        names = [
            each[f"{kind}Name"]
            for page in pages
            for kind in ("Role", "User", "Group")
            for each in page.get(f"Policy{kind}s", [])
        ]
        found += [f"{arn} is attached to {name}: detach it" for name in names if name not in own]
    return found


def main(arguments: Sequence[str]) -> int:
    """Print what goes and what stays; return 2 if something refuses."""
    name, *chosen = arguments
    environment = load_environment(name=name, path=None, directory=CONFIG)
    clients = functools.partial(clients_of, environment, os.environ)
    every = clients_by_stack(name, environment, clients)
    stacks = {each: client for each, client in every.items() if "--all" in chosen or each in chosen}
    for stack in stacks:
        print(f"{stack}: {_GOES[stack.rsplit('-', 1)[-1]]}")
    refused = [f"{each} is true" for each in refusals(stacks)]
    if refused:
        refused.append(
            f"remedy: set {'it' if len(refused) == 1 else 'them'} to false in config/{name}.toml, "
            f"`make deploy ENV={name}`, then this again"
        )
    refused += attachments(stacks)
    if refused:
        print("\n  ".join(["destroy: refused, so nothing was touched:", *refused]), file=sys.stderr)
    return 2 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
