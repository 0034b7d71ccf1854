"""docs/configuration.md says of every setting what the schema says of it."""

from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stacks.config import EnvironmentConfig
from stacks.config_file import section_of
from tests.stacks.conftest import ROOT

DOCUMENT = (ROOT / "docs" / "configuration.md").read_text()


def settings(
    model: type[BaseModel] = EnvironmentConfig, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting as (table, key, field), depth first."""
    for key, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            yield ".".join(path), key, field
        else:
            # An array of tables has its name in two pairs of brackets, as in TOML.
            repeated = "tuple" in str(field.annotation)
            table = ".".join((*path, key))
            yield from settings(section, (f"[{table}]",) if repeated else (*path, key))


def row(key: str, field: FieldInfo) -> str:
    return f"| `{key}` | {default(field)} | {field.description} |"


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ("", (), {}):
        return "none"
    shown = (
        str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else value
    )
    return f"`{shown}`"


def documented(table: str) -> str:
    """The part of the document under a table's heading."""
    heading = f"## `[{table}]`\n" if table else "## The whole environment\n"
    assert heading in DOCUMENT
    return DOCUMENT.split(heading, 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize(
    ("table", "key", "field"), list(settings()), ids=lambda each: each if isinstance(each, str) else ""
)
def test_every_setting_is_documented_as_it_is(table: str, key: str, field: FieldInfo) -> None:
    assert row(key, field) in documented(table).splitlines()


def test_no_setting_is_documented_that_does_not_exist() -> None:
    tables = {table for table, _, _ in settings()}
    for table in tables:
        rows = [line.split("`")[1] for line in documented(table).splitlines() if line.startswith("| `")]
        assert rows == [key for each, key, _ in settings() if each == table]
    headings = {line[5:-2] for line in DOCUMENT.splitlines() if line.startswith("## `[")}
    assert headings == tables - {""}
