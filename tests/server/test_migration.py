"""`migrate`, run as its own process against a database like Amazon's: the master user is not a superuser.

Two migrations at once are in test_server_process.py, beside two servers at once.
"""

from __future__ import annotations

import json
import logging
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg2
import pytest
from mlflow_aws_server import migration, schema
from mlflow_aws_server.database import roles
from mlflow_aws_server.database.connect import connect, store_uri
from mlflow_aws_server.settings import MigrationSettings

from tests.conftest import RdsLike
from tests.server.conftest import SERVER_PYTHON, Deployment, Identity, Migration, deployment


def _phases(output: str) -> list[str]:
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line["phase"] for line in lines if line.get("outcome") == "done"]


def _as(made: Deployment, user: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(
        host=made.rds.host,
        port=made.rds.port,
        user=user,
        password="any",
        dbname=made.database,
        sslmode="verify-full",
        sslrootcert=str(made.rds.ca_file),
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _revision(made: Deployment) -> object:
    return _as(made, made.server_user, "SELECT version_num FROM alembic_version")[0][0]


def _create_roles(made: Deployment) -> MigrationSettings:
    settings = MigrationSettings.from_environ(made.environ)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in made.environ.items():
            patched.setenv(name, value)
        migration._create_roles(settings, migration._Course(settings))
    return settings


def test_empty_database_gets_roles_schema_and_default_experiment(empty: Deployment) -> None:
    finished = empty.migrate()
    assert finished.returncode == 0, finished.stderr
    assert _phases(finished.stderr) == [
        "connect", "lock", "roles", "lock", "import", "schema", "store", "indexes", "grants",
        "verify", "all",
    ]  # fmt: skip
    lines = [json.loads(line) for line in finished.stderr.splitlines()]
    assert all(isinstance(line["ms"], int) for line in lines if line.get("phase", "all") != "all")
    assert _revision(empty) == schema.installed().head
    assert _as(
        empty,
        empty.migrator,
        "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'mlflow\\_aws\\_%' ORDER BY 1",
    ) == [
        ("mlflow_aws_authors_of_runs",),
        ("mlflow_aws_newest_runs",),
        ("mlflow_aws_newest_started_runs",),
        ("mlflow_aws_versions_of_models",),
        ("mlflow_aws_versions_of_runs",),
    ]
    assert _as(empty, empty.server_user, "SELECT name, artifact_location FROM experiments") == [
        ("Default", "s3://example-artifacts/runs/0")
    ]


def test_a_database_that_accepts_too_few_connections_is_not_deployed_to(migrated: Deployment) -> None:
    finished = migrated.migrate(MLFLOW_AWS_DATABASE_REQUIRED_CONNECTIONS="9999")
    assert finished.returncode != 0
    assert "the server's tasks may need 9999" in finished.stderr
    assert "aws rds reboot-db-instance" in finished.stderr
    assert migrated.migrate(MLFLOW_AWS_DATABASE_REQUIRED_CONNECTIONS="50").returncode == 0


def test_later_runs_need_no_master_user(migrated: Deployment) -> None:
    reads = migrated.secret.reads
    finished = migrated.migrate()
    assert finished.returncode == 0, finished.stderr
    assert "roles" not in _phases(finished.stderr)
    assert migrated.secret.reads == reads


def test_rotated_secret_is_read_again_once(empty: Deployment) -> None:
    empty.secret.passwords.insert(0, "the-password-before-rotation")
    _create_roles(empty)
    assert empty.secret.reads == 2
    assert _as(empty, empty.migrator, "SELECT 1") == [(1,)]


def test_roles_may_be_created_again(empty: Deployment) -> None:
    _create_roles(empty)
    _create_roles(empty)
    assert _as(empty, empty.server_user, "SELECT 1") == [(1,)]


def test_the_server_s_sessions_have_limits_in_time_and_the_migrator_s_have_none(migrated: Deployment) -> None:
    for name, value in roles.SERVER_SETTINGS.items():
        assert _as(migrated, migrated.server_user, f"SHOW {name}")[0][0] in (value, "1min")
    assert _as(migrated, migrated.migrator, "SHOW statement_timeout") == [("0",)]


def test_a_role_without_them_gets_them_from_the_next_migration(empty: Deployment) -> None:
    def complete() -> bool:
        settings = MigrationSettings.from_environ(empty.environ)
        connection = psycopg2.connect(
            host=empty.rds.host, port=empty.rds.port, user=empty.migrator, password="any",
            dbname=empty.database, sslmode="verify-full", sslrootcert=str(empty.rds.ca_file),
        )  # fmt: skip
        try:
            return roles.complete(connection, migrator=settings.migrator, server=settings.server_user)
        finally:
            connection.close()

    _create_roles(empty)
    assert complete()
    for changed in (
        f"ALTER ROLE {empty.server_user} RESET ALL",
        f"ALTER ROLE {empty.server_user} SET statement_timeout = 0",
        f"ALTER ROLE {empty.migrator} RESET statement_timeout",
    ):
        empty.rds.administer(changed)
        assert not complete()
        _create_roles(empty)
        assert complete()


@pytest.mark.slow
def test_databases_of_earlier_versions_are_repaired_by_their_next_migration(empty: Deployment) -> None:
    """Before, the master user was a member of `rds_iam` only through the roles that it had created."""
    _create_roles(empty)
    empty.rds.administer(f"REVOKE rds_iam FROM {empty.rds.master} GRANTED BY rds_superuser")
    assert "roles" in _phases(empty.migrate().stderr)
    assert "roles" not in _phases(empty.migrate().stderr)
    assert empty.rds.administer(
        "SELECT count(*) FROM pg_auth_members"
        f" WHERE roleid = 'rds_iam'::regrole AND member = '{empty.rds.master}'::regrole"
    ) == [(1,)]


_REFUSED_TOKEN = psycopg2.OperationalError('FATAL:  PAM authentication failed for user "migrator"')
_NO_ROUTE = psycopg2.OperationalError("connection refused")
_NO_SUCH_USER = psycopg2.OperationalError('password authentication failed for user "migrator"')


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception | None]]:
    """What the next connections end with; None, and all later ones, connect for real."""
    remaining: list[Exception | None] = []

    def refuse(*arguments: Any, **more: Any) -> Any:
        refusal = remaining.pop(0) if remaining else None
        if refusal is not None:
            raise refusal
        return connect(*arguments, **more)

    monkeypatch.setattr(migration, "connect", refuse)
    monkeypatch.setattr(migration, "_CONNECT_POLL_SECONDS", 0.0)
    yield remaining
    assert not remaining


def _migrate_here(made: Deployment) -> None:
    settings = MigrationSettings.from_environ(made.environ)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in made.environ.items():
            patched.setenv(name, value)
        migration.migrate(settings)


def test_refused_token_of_a_role_that_exists_is_waited_for_without_the_master_user(
    migrated: Deployment, refusals: list[Exception | None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="mlflow_aws_server")
    reads = migrated.secret.reads
    refusals += [_NO_ROUTE, _REFUSED_TOKEN, _REFUSED_TOKEN]
    _migrate_here(migrated)
    assert migrated.secret.reads == reads
    assert "connection refused" in [
        vars(record).get("fields", {}).get("waiting") for record in caplog.records
    ]


def test_refused_token_is_named_as_such_when_patience_ends(
    migrated: Deployment, refusals: list[Exception | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = migrated.secret.reads
    monkeypatch.setattr(migration, "_CONNECT_PATIENCE_SECONDS", -1.0)
    refusals.append(_REFUSED_TOKEN)
    with pytest.raises(migration.MigrationError) as failed:
        _migrate_here(migrated)
    message = str(failed.value)
    assert message.startswith("phase connect failed: the token is refused: ")
    assert f"rds-db:connect for {migrated.migrator}" in message
    assert migrated.secret.reads == reads


def test_refused_token_of_the_master_user_is_waited_for(
    empty: Deployment, refusals: list[Exception | None]
) -> None:
    refusals += [_NO_SUCH_USER, _REFUSED_TOKEN]
    _migrate_here(empty)
    assert _as(empty, empty.migrator, "SELECT 1") == [(1,)]


def test_refused_first_token_of_a_role_just_created_is_waited_for(
    empty: Deployment, refusals: list[Exception | None]
) -> None:
    as_master_with_a_token, as_master_with_the_password = None, None
    refusals += [_NO_SUCH_USER, as_master_with_a_token, as_master_with_the_password, _REFUSED_TOKEN]
    _migrate_here(empty)
    assert _revision(empty) == schema.installed().head


def test_wrong_master_password_ends_with_one_line_without_it(empty: Deployment) -> None:
    empty.secret.passwords[:] = ["not-the-password"]
    finished = empty.migrate()
    assert finished.returncode == 1
    assert "phase roles failed: OperationalError: " in json.loads(finished.stderr.splitlines()[-1])["message"]
    assert "password authentication failed" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "not-the-password" not in finished.stdout + finished.stderr
    assert empty.secret.reads == 2


def test_unknown_certificate_authority_ends_with_one_line(empty: Deployment) -> None:
    wrong = empty.rds.postgres.directory.parent / "ca" / "postgres.key"
    finished = empty.migrate(MLFLOW_AWS_DATABASE_CA_FILE=str(wrong))
    assert finished.returncode == 1
    assert "phase connect failed" in finished.stderr
    assert "certificate" in finished.stderr
    assert [json.loads(line)["level"] for line in finished.stderr.splitlines()] == [
        "INFO",
        "INFO",
        "ERROR",
    ]


# A revision of the year before, with work left for most kinds of migration.
_OLDER = "da6fb0208061"
_MAKE_OLDER = """
import sys
from alembic import command
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base

engine = utils.create_sqlalchemy_engine(sys.argv[1])
Base.metadata.create_all(engine)
config = utils._get_alembic_config(sys.argv[1])
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, sys.argv[2])
"""


def test_schema_of_an_older_mlflow_is_upgraded_and_its_rows_kept(empty: Deployment) -> None:
    settings = _create_roles(empty)
    uri = store_uri(settings.database, empty.migrator)
    subprocess.run([SERVER_PYTHON, "-c", _MAKE_OLDER, uri, _OLDER], env=empty.environ, check=True)
    _as(
        empty,
        empty.migrator,
        "INSERT INTO experiments (experiment_id, name, workspace) VALUES (7, 'old', 'default')",
    )
    finished = empty.migrate()
    assert finished.returncode == 0, finished.stderr
    assert _revision(empty) == schema.installed().head
    assert _as(empty, empty.server_user, "SELECT name FROM experiments ORDER BY experiment_id") == [
        ("Default",),
        ("old",),
    ]


@pytest.mark.slow
def test_a_migration_that_dies_at_ten_moments_loses_nothing_and_the_next_one_succeeds(
    empty: Deployment, rds: RdsLike, identity: Identity
) -> None:
    """Killed, stopped, or without its sessions, as after a restart of the database."""
    settings = _create_roles(empty)
    uri = store_uri(settings.database, empty.migrator)
    subprocess.run([SERVER_PYTHON, "-c", _MAKE_OLDER, uri, _OLDER], env=empty.environ, check=True)
    _as(
        empty,
        empty.migrator,
        "INSERT INTO experiments (experiment_id, name, workspace)"
        " SELECT i, 'old ' || i, 'default' FROM generate_series(1, 1000) AS i",
    )
    older = Migration(empty.database, empty.server_user, empty.migrator)
    chance = random.Random(13)
    interrupted = 0
    with ExitStack() as stack:
        made = stack.enter_context(deployment(rds, identity, copy_of=older))
        for attempt in range(10):
            process = made.start("migrate")
            # The first phase in which it holds the lock; some of the moments are before, most are after.
            while '"phase":"drain"' not in process.output() and attempt and process.poll() is None:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 1))
            match attempt % 3:
                case 0:
                    process.kill()
                case 1:
                    process.terminate()
                case _:
                    _as(
                        made,
                        made.migrator,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        f" WHERE usename = '{made.migrator}' AND pid <> pg_backend_pid()",
                    )
            process.wait(60)
            ((revision,),) = _as(made, made.migrator, "SELECT version_num FROM alembic_version")
            assert revision in (_OLDER, schema.installed().head)
            assert _as(made, made.migrator, "SELECT count(*) FROM experiments WHERE experiment_id > 0") == [
                (1000,)
            ]
            if revision == _OLDER:
                interrupted += 1
            else:
                # It had come to its end: the next one dies on another copy.
                made = stack.enter_context(deployment(rds, identity, copy_of=older))
        assert interrupted, "none died before its end"
        finished = made.migrate()
        assert finished.returncode == 0, finished.stderr
        assert _revision(made) == schema.installed().head
        assert _as(made, made.server_user, "SELECT count(*) FROM experiments") == [(1001,)]


def test_failed_migration_changes_nothing_and_says_so(empty: Deployment) -> None:
    _create_roles(empty)
    # A database that claims a schema whose tables it does not have.
    _as(empty, empty.migrator, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    _as(empty, empty.migrator, "INSERT INTO alembic_version VALUES ('451aebb31d03')")
    _as(empty, empty.migrator, "CREATE TABLE unrelated (id int)")
    finished = empty.migrate()
    assert finished.returncode == 1
    assert "phase schema failed: " in finished.stderr
    assert "run `migrate` again" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert _as(empty, empty.migrator, "SELECT version_num FROM alembic_version") == [("451aebb31d03",)]
    assert _as(empty, empty.migrator, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(2,)]


def test_master_user_is_not_a_superuser_here(migrated: Deployment) -> None:
    assert migrated.rds.administer(
        f"SELECT rolsuper FROM pg_roles WHERE rolname = '{migrated.rds.master}'"
    ) == [(False,)]


def test_server_role_reads_and_writes_rows(migrated: Deployment) -> None:
    user = migrated.server_user
    _as(migrated, user, "INSERT INTO experiment_tags (key, value, experiment_id) VALUES ('k', 'v', 0)")
    _as(migrated, user, "UPDATE experiment_tags SET value = 'w' WHERE key = 'k'")
    _as(migrated, user, "DELETE FROM experiment_tags WHERE key = 'k'")
    assert _as(migrated, user, "SELECT nextval('experiments_experiment_id_seq') > 0") == [(True,)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE TEMPORARY TABLE mine (id int)",
        "ALTER TABLE experiments ADD COLUMN mine int",
        "DROP TABLE experiments CASCADE",
        "TRUNCATE metrics",
        "CREATE INDEX mine ON metrics (key)",
        "UPDATE alembic_version SET version_num = 'mine'",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
    ],
)
def test_server_role_cannot(migrated: Deployment, statement: str) -> None:
    with pytest.raises((psycopg2.errors.InsufficientPrivilege,)):
        _as(migrated, migrated.server_user, statement)


@pytest.mark.parametrize("table", ["pg_authid", "pg_shadow"])
def test_server_role_cannot_read_passwords(migrated: Deployment, table: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        _as(migrated, migrated.server_user, f"SELECT * FROM {table}")


def test_server_role_cannot_become_the_migrator(migrated: Deployment) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        _as(migrated, migrated.server_user, f"SET ROLE {migrated.migrator}")


def test_migrator_cannot_create_roles(migrated: Deployment) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        _as(migrated, migrated.migrator, "CREATE ROLE mine")


def test_tables_of_later_migrations_are_the_server_s_at_once(migrated: Deployment) -> None:
    _as(migrated, migrated.migrator, "CREATE TABLE later (id serial)")
    try:
        _as(migrated, migrated.server_user, "INSERT INTO later DEFAULT VALUES")
    finally:
        _as(migrated, migrated.migrator, "DROP TABLE later")


def test_stranger_cannot_connect(migrated: Deployment) -> None:
    migrated.rds.administer("CREATE ROLE passer_by LOGIN")
    migrated.rds.administer("GRANT rds_iam TO passer_by")
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        _as(migrated, "passer_by", "SELECT 1")


def test_mlflow_itself_can_upgrade_with_the_migrator_s_token(migrated: Deployment) -> None:
    uri = store_uri(MigrationSettings.from_environ(migrated.environ).database, migrated.migrator)
    finished = subprocess.run(
        [SERVER_PYTHON, "-m", "mlflow", "db", "upgrade", uri],
        env=migrated.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
