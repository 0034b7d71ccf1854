"""docs/configuration.md says of every setting what the schema says of it."""

import pytest

from stacks.settings_table import DOCUMENT, SECURITY, rendered, with_roles


def section(document: str, table: str) -> str:
    return document.split(f"## `[{table}]`\n", 1)[1].split("\n## ", 1)[0]


def test_the_document_is_what_the_schema_says() -> None:
    document = DOCUMENT.read_text()
    assert rendered(document) == document, "run: python -m stacks.settings_table"


def test_the_roles_of_the_document_are_those_of_the_table() -> None:
    document = SECURITY.read_text()
    assert with_roles(document) == document, "run: python -m stacks.settings_table"


def test_every_table_has_its_section_and_arrays_of_tables_their_brackets() -> None:
    headings = [line for line in rendered("# Configuration\n\n").splitlines() if line.startswith("## ")]
    assert headings[:3] == ["## The whole environment", "## `[network]`", "## `[network.existing]`"]
    assert "## `[[identity.eks]]`" in headings


def test_a_row_says_type_limits_default_and_meaning() -> None:
    rows = section(rendered(""), "database").splitlines()
    assert (
        "| `backup_days` | integer, 7 to 35 | `7` | Days of automated backups, for point-in-time restore. |"
        in rows
    )
    assert any(row.startswith('| `engine_version` | `"17"`, `"18"` | `"18"` |') for row in rows)
    assert any(row.startswith("| `max_connections` | integer, 30 to 5000 | required |") for row in rows)


def test_a_new_section_begins_with_the_schemas_words_and_an_author_may_replace_them() -> None:
    assert section(rendered(""), "database").startswith(
        "\nPostgreSQL on RDS: one instance, or an Aurora cluster.\n\n| Setting |"
    )
    own = rendered("## `[database]`\n\nOur own words.\n\n| Setting |\n| stale |\n")
    assert section(own, "database").startswith("\nOur own words.\n\n| Setting | Type |")
    assert "stale" not in own


def test_a_section_that_the_schema_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no such table: ## `\[databose\]`; remove its section"):
        rendered("## `[databose]`\n\nText.\n")
