"""The tables of settings and of roles in docs/: `python -m stacks.settings_table` writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stacks.config import EnvironmentConfig
from stacks.roles import ROLES

DOCUMENT = Path(__file__).parents[1] / "docs" / "configuration.md"
SECURITY = DOCUMENT.with_name("security.md")
TOP = "## The whole environment"
HEADER = "| Setting | Type | Default | Meaning |\n|---|---|---|---|\n"
ROLES_HEADER = "| Role | May | Permissions in MLflow | Group | Policy |\n|---|---|---|---|---|\n"

Schema = Mapping[str, Any]


def rendered(document: str) -> str:
    """Return the document with one section for each table of the schema, in the schema's order.

    The text of a section is the author's and stays; a section that is new begins with the schema's words.
    Raises ValueError if a section is about a table that the schema does not have.
    """
    introduction, *sections = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    written = {heading: text for heading, _, text in (each.partition("\n") for each in sections)}
    result = [introduction]
    for heading, description, rows in _tables(EnvironmentConfig.model_json_schema()):
        lines = written.pop(heading, f"\n{description}\n").splitlines()
        text = "\n".join(line for line in lines if not line.startswith("|")).strip()
        result.append(f"{heading}\n\n{text}\n\n{HEADER}" if text else f"{heading}\n\n{HEADER}")
        result[-1] += "".join(f"{row}\n" for row in rows)
    if written:
        raise ValueError(f"the schema has no such table: {', '.join(written)}; remove its section")
    return result[0] + "\n".join(result[1:])


def with_roles(document: str) -> str:
    """Return the document with the table of roles as it is in `stacks.roles`."""
    before, after = document.split(ROLES_HEADER)
    rows = "".join(
        f"| {role.name} | {role.summary} | {', '.join(role.permissions)} | `{role.group}` "
        f"| `{role.construct_id}PolicyArn` |\n"
        for role in ROLES
    )
    return before + ROLES_HEADER + rows + re.sub(r"^(\|.*\n)*", "", after)


def _tables(schema: Schema) -> Iterator[tuple[str, str, list[str]]]:
    """Every table as (heading, description, rows), an outer one before those inside it."""
    definitions = schema["$defs"]

    def tables(
        table: Schema, path: str, heading: str, description: str
    ) -> Iterator[tuple[str, str, list[str]]]:
        rows, inner = [], []
        for key, setting in table["properties"].items():
            kind = _kind(setting)
            reference = kind.get("$ref") or kind.get("items", {}).get("$ref")
            if reference is None:
                rows.append(_row(key, setting, required=key in table.get("required", ())))
                continue
            section = definitions[reference.rsplit("/", 1)[-1]]
            name = f"{path}{key}"
            # An array of tables has its name in two pairs of brackets, as in TOML.
            title = f"## `[{name}]`" if "$ref" in kind else f"## `[[{name}]]`"
            inner.append((section, f"{name}.", title, setting.get("description", section["description"])))
        if rows:
            yield heading, description, rows
        for each in inner:
            yield from tables(*each)

    return tables(schema, "", TOP, schema["description"])


def _kind(setting: Schema) -> Schema:
    """What a value must be if it is given at all."""
    kinds: list[Schema] = [each for each in setting.get("anyOf", [setting]) if each.get("type") != "null"]
    return kinds[0]


def _row(key: str, setting: Schema, *, required: bool) -> str:
    default = setting.get("default")
    shown = f"`{json.dumps(default)}`" if default not in (None, "", []) else "none"
    return f"| `{key}` | {_type(setting)} | {'required' if required else shown} | {setting['description']} |"


def _type(setting: Schema) -> str:
    kind = _kind(setting)
    if "enum" in kind:
        return ", ".join(f"`{json.dumps(each)}`" for each in kind["enum"])
    if kind["type"] == "array":
        return f"array of {_type(kind['items'])}s"
    if kind["type"] == "object":
        return f"table of {_type(kind['additionalProperties'])}s"
    low, high = kind.get("minimum"), kind.get("maximum")
    limits = f", {low} to {high}" if high is not None else f", {low} or more" if low is not None else ""
    return f"{kind['type']}{limits}"


if __name__ == "__main__":
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    SECURITY.write_text(with_roles(SECURITY.read_text(encoding="utf-8")), encoding="utf-8")
