"""What of a template the emulator only records: CloudFormation lists it, and nothing else happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from local.emulator.stack_adapters import RECORDED


def only_recorded(template: Mapping[str, Any], created: Collection[str]) -> list[str]:
    """The types of its resources that the emulator does not create, one for each resource."""
    types = [str(each["Type"]) for each in template.get("Resources", {}).values()]
    return sorted(
        each
        for each in types
        if each in RECORDED or (each not in created and not each.startswith("Custom::"))
    )


def told(types: Iterable[str]) -> list[str]:
    """One line for each type, for people to read."""
    return [
        f"{each}{f' x {count}' if count > 1 else ''}: {RECORDED.get(each, 'the emulator has no such type')}"
        for each, count in sorted(Counter(types).items())
    ]
