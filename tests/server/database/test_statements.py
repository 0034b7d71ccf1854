"""What an engine remembers of the statements that it has compiled."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
from mlflow_aws_server.database import statements
from mlflow_aws_server.database.statements import CompiledStatements
from sqlalchemy.sql.compiler import SQLCompiler


def select(columns: int) -> Any:
    return sqlalchemy.select(*(sqlalchemy.literal(i).label(f"c{i}") for i in range(columns)))


def test_statements_used_last_are_kept_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "_MOST_CHARACTERS", 2_000)
    compiled: list[str] = []
    made = SQLCompiler.__init__

    def counted(compiler: Any, *arguments: Any, **more: Any) -> None:
        made(compiler, *arguments, **more)
        compiled.append(compiler.string)

    monkeypatch.setattr(SQLCompiler, "__init__", counted)
    kept = CompiledStatements()
    engine = sqlalchemy.create_engine("sqlite://")
    engine.update_execution_options(compiled_cache=kept)
    with engine.connect() as connection:
        for columns in (1, 2, 1, 2, *range(3, 60), 59, 300):
            assert len(connection.execute(select(columns)).one()) == columns
    engine.dispose()
    assert len(compiled) == 60
    assert kept._characters == sum(len(statement.string) for statement in kept._kept.values()) <= 2_000


def test_the_engines_that_log_in_with_tokens_have_it() -> None:
    uri = "postgresql+psycopg2://someone@localhost/x?sslmode=verify-full&sslrootcert=x&plugin=rds_iam"
    engine = sqlalchemy.create_engine(uri)
    assert isinstance(engine.get_execution_options()["compiled_cache"], CompiledStatements)
