"""Who may open a session: shared with the others, and nobody while a migration drains the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from mlflow_aws_server import schema
from mlflow_aws_server.database import admission, connect
from mlflow_aws_server.database.admission import SchemaRefusedError, SessionRefusedError
from mlflow_aws_server.database.check import DatabaseCheck
from mlflow_aws_server.drain import drain
from mlflow_aws_server.settings import ServerSettings

from tests.conftest import RdsLike
from tests.server.conftest import Deployment, Identity, Migration, deployment

Open = Callable[..., Any]
_NEWER = "feedfacecafe"


@pytest.fixture
def made(
    rds: RdsLike, identity: Identity, migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    monkeypatch.setattr(admission, "STATE", admission.SchemaState())
    with deployment(rds, identity, copy_of=migration) as made:
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def settings(made: Deployment) -> ServerSettings:
    return ServerSettings.from_environ(made.environ)


@pytest.fixture
def opened(made: Deployment, settings: ServerSettings) -> Iterator[Open]:
    """Open a session of the server, or of the migrator."""
    connections = []

    def open_session(user: str = made.server_user) -> Any:
        connections.append(connect.connect(settings.database, user, application="test"))
        connections[-1].autocommit = True
        return connections[-1]

    yield open_session
    for connection in connections:
        connection.close()


def _becomes(migrator: Any, head: str, *, serves: list[str]) -> None:
    with migrator.cursor() as cursor:
        cursor.execute("COMMENT ON TABLE alembic_version IS %s", (json.dumps({head: serves}),))
        cursor.execute("UPDATE alembic_version SET version_num = %s", (head,))


def test_a_drain_ends_idle_sessions_keeps_new_ones_out_and_ends_with_its_session(
    made: Deployment, settings: ServerSettings, opened: Open
) -> None:
    idle, other = opened(), opened()
    admission.admit(idle)
    admission.admit(other)
    ready = DatabaseCheck(settings)
    ready()
    migrator = opened(made.migrator)
    assert drain(migrator, server=made.server_user, grace=20.0) == 3
    with pytest.raises(psycopg2.OperationalError), idle.cursor() as cursor:
        cursor.execute("SELECT 1")
    with pytest.raises(SessionRefusedError, match="being upgraded"):
        admission.admit(opened())
    assert (admission.STATE.state, admission.STATE.refusing) == ("drained", True)
    # Still ready: those who call it are told to come back.
    ready()
    migrator.close()
    admission.admit(opened())
    assert admission.STATE.said() == {"state": "current", "head": schema.installed().head}
    ready.close()


def test_a_session_in_a_transaction_has_its_time_and_no_more(made: Deployment, opened: Open) -> None:
    busy = opened()
    admission.admit(busy)
    with busy.cursor() as cursor:
        cursor.execute("BEGIN")
        assert drain(opened(made.migrator), server=made.server_user, grace=0.0) == 1
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("COMMIT")


def test_sessions_that_will_not_end_fail_the_drain(
    made: Deployment, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission.admit(opened(made.migrator))
    monkeypatch.setattr("mlflow_aws_server.drain._END_SECONDS", -1.0)
    with pytest.raises(TimeoutError, match="would not end"):
        drain(opened(made.migrator), server=made.server_user, grace=0.0)


async def test_the_fast_path_s_sessions_are_refused_with_a_word_when_to_come_back(
    made: Deployment, settings: ServerSettings, opened: Open
) -> None:
    open_connection = connect.connector(settings.database, made.server_user)
    await (await open_connection()).close()
    drain(opened(made.migrator), server=made.server_user)
    with pytest.raises(SchemaRefusedError, match="being upgraded") as refused:
        await open_connection()
    assert (refused.value.status, refused.value.retry_after) == (503, 60)


def test_an_older_server_works_on_a_schema_that_serves_it_and_on_no_other(
    made: Deployment, settings: ServerSettings, opened: Open
) -> None:
    ready = DatabaseCheck(settings)
    ready()
    migrator = opened(made.migrator)
    _becomes(migrator, _NEWER, serves=[schema.installed().head])
    admission.admit(opened())
    ready()
    assert admission.STATE.said() == {"state": "newer", "head": _NEWER}
    _becomes(migrator, _NEWER, serves=["another"])
    with pytest.raises(SessionRefusedError, match="older than the database"):
        admission.admit(opened())
    with pytest.raises(SessionRefusedError, match="older than the database"):
        ready()
    assert admission.STATE.state == "outdated"
    ready.close()
