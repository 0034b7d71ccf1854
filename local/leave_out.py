"""Removes from a template what the emulator cannot create, and lists it."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Template = dict[str, Any]

# Types that the emulator accepts and then fails to create.
_FAILING_TYPES: Mapping[str, str] = {
    "Custom::VpcRestrictDefaultSG": "its function needs the JavaScript SDK of Lambda's own Node.js",
}
_SUBSTITUTION = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.[A-Za-z0-9.]+)?\}")


@dataclass(frozen=True, order=True)
class LeftOut:
    """One resource that was not deployed."""

    type: str
    logical_id: str
    because: str


def leave_out(template: Template, supported: Collection[str]) -> tuple[Template, list[LeftOut]]:
    """Return the template without what the emulator cannot create, and what that was.

    What depends on a left-out resource goes with it: resources that refer to it, outputs of its values, and
    parameters that nothing uses any more.
    """
    kept = copy.deepcopy(template)
    resources: dict[str, Any] = kept.get("Resources", {})
    gone: list[LeftOut] = []
    for logical_id, resource in list(resources.items()):
        if because := _reason(resource["Type"], supported):
            gone.append(LeftOut(resource["Type"], logical_id, because))
            del resources[logical_id]
    missing = {each.logical_id for each in gone}
    while needy := _needing(resources, missing):
        for logical_id, needed in needy:
            gone.append(LeftOut(resources[logical_id]["Type"], logical_id, f"it needs {needed}"))
            missing.add(logical_id)
            del resources[logical_id]
    for resource in resources.values():
        _forget_order(resource, missing)
    _remove_outputs(kept, missing)
    _remove_parameters(kept)
    return kept, sorted(gone)


def references(value: object) -> Iterator[str]:
    """The logical ids and parameters that a part of a template refers to."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "Ref" and isinstance(inner, str):
                yield inner
            elif key == "Fn::GetAtt":
                yield inner[0] if isinstance(inner, list) else str(inner).split(".")[0]
            elif key == "Fn::Sub":
                text = inner[0] if isinstance(inner, list) else inner
                yield from _SUBSTITUTION.findall(str(text))
                yield from references(inner[1:] if isinstance(inner, list) else [])
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def _reason(kind: str, supported: Collection[str]) -> str | None:
    if kind in _FAILING_TYPES:
        return _FAILING_TYPES[kind]
    if kind in supported or kind.startswith("Custom::"):
        return None
    return "the emulator has no such type"


def _needing(resources: Mapping[str, Any], missing: Collection[str]) -> list[tuple[str, str]]:
    found = []
    for logical_id, resource in resources.items():
        needed = next((each for each in references(resource.get("Properties")) if each in missing), None)
        if needed is not None:
            found.append((logical_id, needed))
    return found


def _forget_order(resource: dict[str, Any], missing: Collection[str]) -> None:
    before = resource.get("DependsOn")
    if before is None:
        return
    left = [each for each in ([before] if isinstance(before, str) else before) if each not in missing]
    if left:
        resource["DependsOn"] = left
    else:
        del resource["DependsOn"]


def _remove_outputs(template: Template, missing: Collection[str]) -> None:
    for name, output in list(template.get("Outputs", {}).items()):
        if any(each in missing for each in references(output)):
            del template["Outputs"][name]


def _remove_parameters(template: Template) -> None:
    parts = ("Resources", "Outputs", "Conditions", "Rules", "Mappings")
    asked = set(references([template.get(part) for part in parts]))
    for name in list(template.get("Parameters", {})):
        if name not in asked:
            del template["Parameters"][name]
