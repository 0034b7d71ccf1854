"""Which database schema this MLflow needs, read from its migration scripts without importing MLflow.

MLflow refuses any schema but its own head. Importing it to learn the head takes seconds; the scripts
name their revision and its parent in two literal assignments.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
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
        parents = {}
        for script in scripts(versions):
            if (named := revision_of(script)) is not None:
                parents[named[0]] = named[1]
        heads = set(parents) - {parent for below in parents.values() for parent in below}
        if len(heads) != 1:
            raise RuntimeError(f"{versions} has {len(heads)} newest revisions, expected one: {sorted(heads)}")
        return cls(head=heads.pop(), known=frozenset(parents))


@cache
def installed() -> Schema:
    """The schema of the installed MLflow."""
    return Schema.read(installed_versions())


def installed_versions() -> Path:
    """Where the installed MLflow has its migration scripts."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise RuntimeError("MLflow is not installed; its migration scripts say which schema it needs")
    return Path(spec.origin).parent / "store" / "db_migrations" / "versions"


def scripts(versions: Path) -> Iterator[ast.Module]:
    """The migration scripts, as syntax."""
    for script in sorted(versions.glob("*.py")):
        yield ast.parse(script.read_bytes())


def revision_of(script: ast.Module) -> tuple[str, frozenset[str]] | None:
    """The revision that a script makes, and those it builds on."""
    names = _literals(script)
    revision, below = names.get("revision"), names.get("down_revision")
    if not isinstance(revision, str):
        return None
    return revision, frozenset(below if isinstance(below, tuple) else [str(below)] if below else ())


def _literals(script: ast.Module) -> dict[str, object]:
    found: dict[str, object] = {}
    for statement in script.body:
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
