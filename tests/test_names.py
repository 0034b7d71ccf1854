"""One name stands for one thing: no two classes of the product share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = [
    "stacks",
    "preflight",
    "server",
    "verify_account",
    "findings",
    "client_smoke",
    "client_auth",
    "lifecycle",
    "examples",
    "local",
    "bench",
]


def test_no_two_public_classes_have_the_same_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(file.relative_to(ROOT)))
    assert len(places) > 200
    shared = {name: where for name, where in places.items() if len(where) > 1}
    assert not shared, "name the less central one after its subject"
