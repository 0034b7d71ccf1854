"""The migration: database roles, MLflow's schema and the server's grants, in that order.

It can be run again at any time; of two runs at once, one waits for the other.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from mlflow_aws_server import schema
from mlflow_aws_server.database import roles
from mlflow_aws_server.database.connect import connect, store_uri
from mlflow_aws_server.progress import phase, report
from mlflow_aws_server.settings import MigrationSettings

_APPLICATION = "mlflow-migrate"
# "mlflow" in ASCII: one lock for every version of this program.
_LOCK = 0x6D6C666C6F77
_LOCK_PATIENCE_SECONDS = 3600.0
_LOCK_POLL_SECONDS = 0.5
_REPORT_EVERY_SECONDS = 10.0
_ROTATION_PAUSE_SECONDS = 2.0
# A migration that waits for a table makes every later query wait behind it: failing is better.
_LOCK_TIMEOUT = "-c lock_timeout=60s"


class MigrationError(RuntimeError):
    """The migration failed; the message says in which phase, what was seen and what to do."""


def migrate(settings: MigrationSettings) -> None:
    """Bring the database to the state that this image's server needs.

    Raises:
        MigrationError: it failed. An existing schema is unchanged then: MLflow's migrations run in one
            transaction.
    """
    with _explained(
        "connect", "Look at the database's security group, endpoint and IAM policy (rds-db:connect)."
    ):
        roles_are_there = _can_migrate(settings)
    if not roles_are_there:
        with _explained("roles", "The master user needs CREATEROLE and the admin option on rds_iam."):
            _create_roles(settings)
    with (
        _explained("schema", "What failed is rolled back; correct the cause and run `migrate` again."),
        closing(connect(settings.database, settings.migrator, application=_APPLICATION)) as owner,
    ):
        owner.autocommit = True
        with _locked(owner):
            _upgrade_schema(settings)
            with phase("indexes"):
                _create_indexes(owner)
            with phase("grants"):
                roles.grant_data(owner, server=settings.server_user)
    report("migrate", phase="all", outcome="done", schema=schema.installed().head)


def _can_migrate(settings: MigrationSettings) -> bool:
    """Whether the roles exist, so that the master user is not needed.

    Asking first means that only the first run reads the master secret. It also matters where membership
    of rds_iam ends password logins: creating a role makes its creator a member of it.
    """
    with phase("connect") as details:
        try:
            with closing(connect(settings.database, settings.migrator, application=_APPLICATION)) as owner:
                ready = roles.complete(owner, migrator=settings.migrator, server=settings.server_user)
        except psycopg2.OperationalError as error:
            if not _is_login_refused(error):
                raise
            ready = False
        details["roles"] = "present" if ready else "missing"
    return ready


def _create_roles(settings: MigrationSettings) -> None:
    with phase("roles"), closing(_connect_as_master(settings)) as master:
        master.autocommit = True
        with _locked(master):
            roles.create(
                master,
                database=settings.database.name,
                migrator=settings.migrator,
                server=settings.server_user,
            )


def _connect_as_master(settings: MigrationSettings) -> Connection:
    try:
        return _connect_with_secret(settings)
    except psycopg2.OperationalError as error:
        if not _is_login_refused(error):
            raise
        # RDS does not rotate the secret and the password at exactly the same moment.
        report("migrate", phase="roles", note="the master password was refused; reading the secret again")
        time.sleep(_ROTATION_PAUSE_SECONDS)
        return _connect_with_secret(settings)


def _connect_with_secret(settings: MigrationSettings) -> Connection:
    import boto3

    client = boto3.client("secretsmanager", region_name=settings.database.region)
    secret = json.loads(client.get_secret_value(SecretId=settings.master_secret_arn)["SecretString"])
    return connect(
        settings.database,
        secret["username"],
        password=secret["password"],
        application=f"{_APPLICATION}-roles",
    )


def _upgrade_schema(settings: MigrationSettings) -> None:
    with phase("import"):
        # It takes seconds, so it is a phase of its own.
        from mlflow.db import upgrade
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri = store_uri(
        settings.database, settings.migrator, application_name=_APPLICATION, options=_LOCK_TIMEOUT
    )
    with phase("schema") as details:
        upgrade.main([uri], standalone_mode=False)
        details["schema"] = schema.installed().head
    with phase("store"):
        # Creates the default experiment, which two servers starting at once would both try to.
        SqlAlchemyStore(uri, settings.artifact_root)._dispose_engine()


def _create_indexes(owner: Connection) -> None:
    from mlflow_aws_server.fastpath.indexes import INDEX_STATEMENTS

    with owner.cursor() as cursor:
        cursor.execute("SET lock_timeout = '60s'")
        for statement in INDEX_STATEMENTS:
            cursor.execute(statement)


@contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    """Hold the migration's advisory lock in this session; wait up to an hour for it."""
    started = time.monotonic()
    reported = started
    with phase("lock"), connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
            row = cursor.fetchone()
            if row and row[0]:
                break
            now = time.monotonic()
            if now - started > _LOCK_PATIENCE_SECONDS:
                raise MigrationError(
                    f"another migration has held the lock for {_LOCK_PATIENCE_SECONDS:.0f} s: "
                    "look at its output, or end its session (pg_locks, locktype advisory)"
                )
            if now - reported >= _REPORT_EVERY_SECONDS:
                report(
                    "migrate",
                    phase="lock",
                    waiting="another migration is running",
                    seconds=round(now - started),
                )
                reported = now
            time.sleep(_LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        if not connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


@contextmanager
def _explained(name: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except MigrationError:
        raise
    except Exception as error:
        seen = " ".join(str(error).split()) or type(error).__name__
        raise MigrationError(f"phase {name} failed: {type(error).__name__}: {seen}. {remedy}") from error


def _is_login_refused(error: psycopg2.OperationalError) -> bool:
    # libpq has no SQLSTATE for a connection that never opened.
    text = str(error)
    return (
        "authentication failed" in text
        or ("role" in text and "does not exist" in text)
        or "no pg_hba.conf" in text
    )
