"""Who may open a session: shared with the others, and nobody while a migration drains the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from mlflow_aws_server import drill as drills
from mlflow_aws_server import migration, relocation, schema
from mlflow_aws_server.cleanup import erase, gc
from mlflow_aws_server.database import admission, connect, contents
from mlflow_aws_server.database.admission import SchemaRefusedError, SessionRefusedError
from mlflow_aws_server.database.check import DatabaseCheck
from mlflow_aws_server.drain import drain
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.imports import run as imports
from mlflow_aws_server.imports.archive import Archive
from mlflow_aws_server.settings import CleanupSettings, ImportSettings, MigrationSettings, ServerSettings

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
    assert (refused.value.status, refused.value.retry_after) == (503, 5)


def test_clients_come_back_soon_and_have_patience_for_eight_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    state = admission.SchemaState()
    state.drained()
    pauses = []
    for _ in range(7):
        # It is still drained, as every refused session finds.
        state.drained()
        pauses.append(state.retry_after)
        now += pauses[-1]
    assert pauses == [5, 10, 30, 90, 120, 120, 120]
    state.saw([schema.installed().head])
    state.drained()
    assert state.retry_after == 5


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


def _drill(environ: Any) -> None:
    database = ServerSettings.from_environ(environ).database
    user = environ["MLFLOW_AWS_DATABASE_USER"]
    drills.drill(database, database, user=user, artifact_root="s3://any", at=0)


_OPERATIONS: dict[str, Callable[[Any], object]] = {
    "drill": _drill,
    "erase": lambda environ: erase.plan(CleanupSettings.from_environ(environ), what="run", value="any"),
    "gc": lambda environ: gc.gc(CleanupSettings.from_environ(environ), days=0, dry_run=False),
    "import": lambda environ: imports.run(
        ImportSettings.from_environ(environ), "a", sha256="", dry_run=False
    ),
    "relocate": lambda environ: relocation.relocate(
        ImportSettings.from_environ(environ), old="s3://old", new=f"{environ['MLFLOW_AWS_ARTIFACT_ROOT']}/new"
    ),
}


@pytest.mark.parametrize("name", _OPERATIONS)
def test_no_operation_begins_during_a_migration(
    made: Deployment, opened: Open, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Archive, "read", lambda *_, **__: None)
    migrator = opened(made.migrator)
    with migrator.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (admission.MIGRATION_LOCK,))
    drain(migrator, server=made.server_user)
    with pytest.raises(OperationError, match="Nothing was done: run it again when the deployment has ended"):
        _OPERATIONS[name](made.environ)


def test_a_drill_that_is_drained_ends_with_one_clear_line(
    made: Deployment, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrator = opened(made.migrator)
    ended = contents.read

    def read(connection: Any) -> contents.Contents:
        drain(migrator, server=made.server_user, grace=0.0)
        return ended(connection)

    monkeypatch.setattr(contents, "read", read)
    with pytest.raises(OperationError, match=r"^the drill ended early: .* Run it again\.$"):
        _drill(made.environ)


def test_a_migration_waits_for_the_owner_s_operations_before_it_drains_anybody(
    made: Deployment, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "_LOCK_PATIENCE_SECONDS", -1.0)
    server, one, other = opened(), opened(made.migrator), opened(made.migrator)
    admission.admit(server)
    for each in (one, other):
        admission.keep_migrations_away(each)
    one.close()
    with pytest.raises(migration.MigrationError, match="another migration, or an operation"):
        migration.migrate(MigrationSettings.from_environ(made.environ))
    with server.cursor() as cursor:
        cursor.execute("SELECT 1")
