"""The schema this MLflow needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow_aws_server import schema
from mlflow_aws_server.schema import Schema


def test_head_is_the_one_mlflow_demands() -> None:
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert schema.installed().head == _get_latest_schema_revision()


def test_older_revisions_are_known() -> None:
    # The first migration after MLflow 1.0, from which every older database comes.
    assert "451aebb31d03" in schema.installed().known
    assert schema.installed().head in schema.installed().known


def test_two_heads_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("revision = 'a'\ndown_revision = None\n")
    (tmp_path / "b.py").write_text("revision = 'b'\ndown_revision = 'a'\n")
    (tmp_path / "c.py").write_text("revision: str = 'c'\ndown_revision = 'a'\n")
    with pytest.raises(RuntimeError, match=r"2 newest revisions.*\['b', 'c'\]"):
        Schema.read(tmp_path)


def test_merge_revision_has_two_parents(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("revision = 'a'\ndown_revision = None\n")
    (tmp_path / "b.py").write_text("revision = 'b'\ndown_revision = None\n")
    (tmp_path / "c.py").write_text("revision = 'c'\ndown_revision = ('a', 'b')\n")
    assert Schema.read(tmp_path) == Schema(head="c", known=frozenset("abc"))
