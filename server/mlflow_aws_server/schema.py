"""Which database schema this MLflow needs, read from its migration scripts without importing MLflow.

MLflow refuses any schema but its own head. Importing it to learn the head takes seconds; the scripts
name their revision and its parent in two literal assignments.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Schema:
    """The newest revision of this MLflow and every one it knows."""

    head: str
    known: frozenset[str]

    @classmethod
    def read(cls, versions: Path) -> Schema:
        """Read the migration scripts in `versions`.

        Raises:
            RuntimeError: there is not exactly one head.
        """
        parents: dict[str, set[str]] = {}
        for script in sorted(versions.glob("*.py")):
            names = _literals(script)
            revision = names.get("revision")
            if isinstance(revision, str):
                below = names.get("down_revision")
                parents[revision] = (
                    set(below) if isinstance(below, tuple) else {str(below)} if below else set()
                )
        heads = set(parents) - {parent for below in parents.values() for parent in below}
        if len(heads) != 1:
            raise RuntimeError(f"{versions} has {len(heads)} newest revisions, expected one: {sorted(heads)}")
        return cls(head=heads.pop(), known=frozenset(parents))


@cache
def installed() -> Schema:
    """The schema of the installed MLflow."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise RuntimeError("MLflow is not installed; its migration scripts say which schema it needs")
    return Schema.read(Path(spec.origin).parent / "store" / "db_migrations" / "versions")


def _literals(script: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for statement in ast.parse(script.read_bytes()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                found[statement.targets[0].id] = ast.literal_eval(statement.value)
            except ValueError:
                continue
        elif (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and statement.value
        ):
            try:
                found[statement.target.id] = ast.literal_eval(statement.value)
            except ValueError:
                continue
    return found
