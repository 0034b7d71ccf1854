"""A server that starts before the migration has run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import psycopg2
import pytest
from mlflow_aws_server import schema, schema_wait
from mlflow_aws_server.database.token import NoCredentialsError
from mlflow_aws_server.schema_wait import SchemaNotReadyError, wait_for_schema
from mlflow_aws_server.settings import ServerSettings

_OLDER = "451aebb31d03"
_NO_ROUTE = psycopg2.OperationalError("no route to host")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_wait, "_POLL_SECONDS", 0.0)


def _seen(*answers: str | Exception) -> Callable[[ServerSettings], str]:
    remaining: Iterator[str | Exception] = iter(answers)

    def look(_: ServerSettings) -> str:
        answer = next(remaining)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return look


SETTINGS: ServerSettings = None  # type: ignore[assignment]  # the tests' `look` needs none


def test_server_waits_through_outage_empty_and_older_schema(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mlflow_aws_server")
    head = schema.installed().head
    wait_for_schema(SETTINGS, look=_seen(NoCredentialsError("no role"), _NO_ROUTE, "", _OLDER, head))
    first, *_, last = (vars(record)["fields"] for record in caplog.records)
    assert "no role" in first["waiting"]
    assert last["schema"] == head


def test_newer_schema_ends_the_start_at_once() -> None:
    with pytest.raises(SchemaNotReadyError, match=r"does not know.*restore the snapshot"):
        wait_for_schema(SETTINGS, look=_seen("ffffffffffff"))


def test_patience_ends_with_what_was_seen_and_what_to_do() -> None:
    with pytest.raises(SchemaNotReadyError, match=rf"its schema is {_OLDER}.*Run `migrate`"):
        wait_for_schema(SETTINGS, patience=-1, look=_seen(_OLDER))
