"""The table of limits that people read, and how one is refused."""

from __future__ import annotations

import pytest
from mlflow_aws_server.limits import CONDITIONS, LimitError, as_markdown

from tests.server.conftest import PROJECT


def test_document_is_what_the_code_does() -> None:
    assert (PROJECT / "docs" / "limits.md").read_text() == as_markdown(), (
        "run: python -m mlflow_aws_server.limits > docs/limits.md"
    )


def test_refusal_names_the_limit_what_was_seen_and_what_to_do() -> None:
    CONDITIONS.check(CONDITIONS.most)
    with pytest.raises(LimitError, match=f"The filter has 31 conditions; at most {CONDITIONS.most} are") as e:
        CONDITIONS.check(31)
    assert (e.value.status, e.value.code) == (400, "INVALID_PARAMETER_VALUE")
    assert e.value.message.endswith(CONDITIONS.remedy)
