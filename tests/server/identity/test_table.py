"""The route table that people read."""

from __future__ import annotations

from mlflow_aws_server.identity.table import as_markdown

from tests.server.conftest import PROJECT


def test_document_is_what_the_code_does() -> None:
    assert (PROJECT / "docs" / "identity-routes.md").read_text() == as_markdown(), (
        "run: python -m mlflow_aws_server.identity.table > docs/identity-routes.md"
    )
