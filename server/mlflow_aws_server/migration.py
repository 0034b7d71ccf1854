"""The migration: database roles, MLflow's schema and the server's grants, in that order.

It can be run again at any time; of two runs at once, one waits for the other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TypeVar

import psycopg2
from botocore.exceptions import BotoCoreError, ClientError
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from mlflow_aws_server import schema
from mlflow_aws_server.database import roles
from mlflow_aws_server.database.connect import connect, store_uri
from mlflow_aws_server.database.token import NoCredentialsError
from mlflow_aws_server.progress import Patience, phase, report
from mlflow_aws_server.settings import MigrationSettings

T = TypeVar("T")

_APPLICATION = "mlflow-migrate"
# "mlflow" in ASCII: one lock for every version of this program.
_LOCK = 0x6D6C666C6F77
_LOCK_PATIENCE_SECONDS = 3600.0
_LOCK_POLL_SECONDS = 0.5
# As long as `serve` waits: a new role's policies take a while to be known everywhere.
_CONNECT_PATIENCE_SECONDS = 300.0
_CONNECT_POLL_SECONDS = 5.0
_ROTATION_PAUSE_SECONDS = 2.0
# A migration that waits for a table makes every later query wait behind it: failing is better.
_LOCK_TIMEOUT = "-c lock_timeout=60s"
# Waiting does not make another certificate authority trusted.
_PERMANENT = ("certificate", "SSL")


class MigrationError(RuntimeError):
    """The migration failed; the message says in which phase, what was seen and what to do."""


def migrate(settings: MigrationSettings) -> None:
    """Bring the database to the state that this image's server needs.

    Raises:
        MigrationError: it failed. An existing schema is unchanged then: MLflow's migrations run in one
            transaction.
    """
    with _reached(settings):
        roles_are_there = _patiently(lambda: _can_migrate(settings))
    if not roles_are_there:
        with _explained("roles", "The master user needs CREATEROLE and the admin option on rds_iam."):
            _patiently(lambda: _create_roles(settings))
    with _reached(settings):
        # The first token of a new role, which nothing has been asked about before.
        owner = _patiently(lambda: connect(settings.database, settings.migrator, application=_APPLICATION))
    with (
        _explained("schema", "What failed is rolled back; correct the cause and run `migrate` again."),
        closing(owner),
    ):
        owner.autocommit = True
        _require_connections(owner, settings.required_connections)
        with _locked(owner):
            _upgrade_schema(settings)
            _build_indexes(owner)
            with phase("grants"):
                roles.grant_data(owner, server=settings.server_user)
    report("migrate", phase="all", outcome="done", schema=schema.installed().head)


def _patiently(attempt: Callable[[], T]) -> T:
    """Repeat what a database or a policy that is not there yet refuses; any other error is final."""
    waiting = Patience(
        "migrate", seconds=_CONNECT_PATIENCE_SECONDS, poll=_CONNECT_POLL_SECONDS, phase="connect"
    )
    while True:
        try:
            return attempt()
        except (psycopg2.OperationalError, ClientError, BotoCoreError, NoCredentialsError) as error:
            if not (_may_pass(error) and waiting.wait(_one_line(error))):
                raise


def _may_pass(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return str(error.response["Error"]["Code"]) == "AccessDeniedException"
    return not (_is_unknown_user(error) or any(each in str(error) for each in _PERMANENT))


def _can_migrate(settings: MigrationSettings) -> bool:
    """Whether the roles exist, so that the master user is not needed.

    Asking first means that only the first run reads the master secret.

    Raises:
        psycopg2.OperationalError: the database cannot be reached, or refuses the token of a role that exists.
    """
    with phase("connect") as details:
        try:
            with closing(connect(settings.database, settings.migrator, application=_APPLICATION)) as owner:
                ready = roles.complete(owner, migrator=settings.migrator, server=settings.server_user)
        except psycopg2.OperationalError as error:
            if not _is_unknown_user(error):
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
    """Log in as the master user: with a token, or with its password until it is a member of `rds_iam`."""

    def log_in(password: str | None = None) -> Connection:
        return connect(settings.database, user, password=password, application=f"{_APPLICATION}-roles")

    user, password = _master_secret(settings)
    with _refusal_is_no_end():
        return log_in()
    with _refusal_is_no_end():
        return log_in(password)
    # RDS does not rotate the secret and the password at exactly the same moment.
    report("migrate", phase="roles", note="the master password was refused; reading the secret again")
    time.sleep(_ROTATION_PAUSE_SECONDS)
    return log_in(_master_secret(settings)[1])


@contextmanager
def _refusal_is_no_end() -> Iterator[None]:
    try:
        yield
    except psycopg2.OperationalError as error:
        if not _is_unknown_user(error):
            raise


def _master_secret(settings: MigrationSettings) -> tuple[str, str]:
    import boto3

    client = boto3.client("secretsmanager", region_name=settings.database.region)
    secret = json.loads(client.get_secret_value(SecretId=settings.master_secret_arn)["SecretString"])
    return secret["username"], secret["password"]


def _require_connections(owner: Connection, required: int) -> None:
    """Compare with what is in force: a change of the parameter waits for a restart of the database."""
    with owner.cursor() as cursor:
        cursor.execute("SELECT current_setting('max_connections')::int")
        row = cursor.fetchone()
    accepted = int(row[0]) if row else 0
    if accepted < required:
        raise MigrationError(
            f"PostgreSQL accepts {accepted} connections, and the server's tasks may need {required}: a new "
            "max_connections waits for a restart. Run `aws rds reboot-db-instance` for the database, and "
            "deploy again."
        )


def _upgrade_schema(settings: MigrationSettings) -> None:
    with phase("import"):
        # It takes seconds, so it is a phase of its own.
        from mlflow.db import upgrade
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    uri = store_uri(
        settings.database, settings.migrator, application_name=_APPLICATION, options=_LOCK_TIMEOUT
    )
    with phase("schema") as details:
        upgrade.main([uri], standalone_mode=False)
        details["schema"] = schema.installed().head
    with phase("store"):
        # Creates the default experiment, which two servers starting at once would both try to.
        SqlAlchemyStore(uri, settings.artifact_root)._dispose_engine()


def _build_indexes(owner: Connection) -> None:
    from mlflow_aws_server.fastpath import indexes

    with phase("indexes") as details:
        # The new schema is in force already: a missing index costs time, no answer.
        if held_up := indexes.build(owner):
            details["left_for_the_next_run"] = held_up


@contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    """Hold the migration's advisory lock in this session; wait up to an hour for it."""
    waiting = Patience("migrate", seconds=_LOCK_PATIENCE_SECONDS, poll=_LOCK_POLL_SECONDS, phase="lock")
    with phase("lock"), connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
            row = cursor.fetchone()
            if row and row[0]:
                break
            if not waiting.wait("another migration is running"):
                raise MigrationError(
                    f"another migration has held the lock for {_LOCK_PATIENCE_SECONDS:.0f} s: "
                    "look at its output, or end its session (pg_locks, locktype advisory)"
                )
    try:
        yield
    finally:
        if not connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


def _reached(settings: MigrationSettings) -> AbstractContextManager[None]:
    return _explained(
        "connect",
        "Look at the database's security group and endpoint, and at the task role's policy: "
        f"rds-db:connect for {settings.migrator}.",
    )


@contextmanager
def _explained(name: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except MigrationError:
        raise
    except Exception as error:
        kind = "the token is refused" if _is_token_refused(error) else type(error).__name__
        raise MigrationError(f"phase {name} failed: {kind}: {_one_line(error)}. {remedy}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# libpq has no SQLSTATE for a connection that never opened.
def _is_token_refused(error: Exception) -> bool:
    """RDS asks for tokens, by PAM, only from members of `rds_iam`: the role exists."""
    return "PAM authentication failed" in str(error)


def _is_unknown_user(error: Exception) -> bool:
    """No such role, or one that is not a member of `rds_iam`: PostgreSQL asked for a password."""
    text = str(error)
    return not _is_token_refused(error) and (
        "authentication failed" in text
        or ("role" in text and "does not exist" in text)
        or "no pg_hba.conf" in text
    )
