"""The migration: database roles, MLflow's schema and the server's grants, in that order.

It can be run again at any time; of two runs at once, one waits for the other.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import psycopg2
from botocore.exceptions import BotoCoreError, ClientError
from psycopg2 import errors
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class
from sqlalchemy.exc import OperationalError

from mlflow_aws_server import revisions, schema, snapshots
from mlflow_aws_server.database import admission, roles
from mlflow_aws_server.database.connect import connect, store_uri
from mlflow_aws_server.database.token import NoCredentialsError
from mlflow_aws_server.drain import drain
from mlflow_aws_server.limits import LOCK_TIME
from mlflow_aws_server.progress import Patience, metrics, phase, report
from mlflow_aws_server.revisions import Revision
from mlflow_aws_server.settings import MigrationSettings
from mlflow_aws_server.verification import differences

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

T = TypeVar("T")

_APPLICATION = "mlflow-migrate"
_LOCK_PATIENCE_SECONDS = 3600.0
_LOCK_POLL_SECONDS = 0.5
# As long as `serve` waits: a new role's policies take a while to be known everywhere.
_CONNECT_PATIENCE_SECONDS = 300.0
_CONNECT_POLL_SECONDS = 5.0
_ROTATION_PAUSE_SECONDS = 2.0
# Half of what the server's own statements wait for: those that queue behind a migration are not refused.
_LOCK_TIMEOUT = f"{LOCK_TIME.most // 2}s"
_TABLE_PATIENCE_SECONDS = 600.0
_TABLE_POLL_SECONDS = 1.0
# Waiting does not make another certificate authority trusted.
_PERMANENT = ("certificate", "SSL")


class MigrationError(RuntimeError):
    """The migration failed; the message says in which phase, what was seen and what to do."""


def migrate(settings: MigrationSettings) -> None:
    """Bring the database to the state that this image's server needs.

    Additive revisions are applied beside the servers that run. Before others the servers' sessions are
    drained, and there is a snapshot. Ends with a report in the log, also when it fails.

    Raises:
        MigrationError: it failed. An existing schema is unchanged then: MLflow's migrations run in one
            transaction; unless the message names the snapshot of how it was.
    """
    course = _Course(settings)
    try:
        _migrate(settings, course)
    except BaseException:
        course.end("failed")
        raise
    course.end("done")


class _Course:
    """What a migration has done so far, and how long each phase took."""

    def __init__(self, settings: MigrationSettings) -> None:
        self._environment = settings.environment
        self._deployment = settings.deployment
        self._started = time.monotonic()
        self._drained_at: float | None = None
        self.current = ""
        self.seconds: dict[str, float] = {}
        self.schema: dict[str, object] = {}
        self.snapshot: str | None = None
        self.changed = False

    @contextmanager
    def phase(self, name: str) -> Iterator[dict[str, object]]:
        self.current, started = name, time.monotonic()
        try:
            with phase(name) as details:
                yield details
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def drains(self) -> None:
        self._drained_at = time.monotonic()

    def remedy(self) -> str:
        """What to do after a failure."""
        if not self.changed:
            return (
                "The schema is unchanged, and the former version serves it: correct the cause and run "
                "`migrate` again."
            )
        if self.snapshot is None:
            return "The schema is new already; correct the cause and run `migrate` again."
        return (
            "The schema is new already: correct the cause and deploy again, or go back to how it was with "
            f"`make restore ENV={self._environment} SNAPSHOT={self.snapshot}`."
        )

    def end(self, outcome: str) -> None:
        """The last line of the log, which CloudWatch makes metrics of."""
        total = time.monotonic() - self._started
        drained = 0.0 if self._drained_at is None else time.monotonic() - self._drained_at
        report(
            "migrate",
            phase="all",
            outcome=outcome,
            **self.schema,
            snapshot=self.snapshot,
            seconds={name: round(each, 1) for name, each in self.seconds.items()},
            **metrics(
                self._deployment,
                {
                    "MigrationSeconds": total,
                    "DrainedSeconds": drained,
                    "MigrationFailed": float(outcome != "done"),
                    **{f"Migration{name.title()}Seconds": each for name, each in self.seconds.items()},
                },
            ),
        )


def _migrate(settings: MigrationSettings, course: _Course) -> None:
    with _reached(settings):
        roles_are_there = _patiently(lambda: _can_migrate(settings, course))
    if not roles_are_there:
        with _explained("roles", "The master user needs CREATEROLE and the admin option on rds_iam."):
            _patiently(lambda: _create_roles(settings, course))
    with _reached(settings):
        # The first token of a new role, which nothing has been asked about before.
        owner = _patiently(lambda: connect(settings.database, settings.migrator, application=_APPLICATION))
    with closing(owner), _explained(lambda: course.current, course.remedy):
        owner.autocommit = True
        _require_connections(owner, settings.required_connections)
        with _locked(owner, course):
            before = _seen(owner)
            pending = _pending(before, settings.environment)
            course.schema = {"before": before[0] if before else None, "schema": schema.installed().head}
            with course.phase("import"):
                # It takes seconds, which nobody shall wait for during a drain.
                import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
            if why := [f"{each.id} ({each.drains})" for each in pending if each.drains]:
                _drain(owner, settings, course, why)
            _upgrade_schema(owner, settings, course, before)
            from mlflow_aws_server.events import outbox
            from mlflow_aws_server.fastpath import indexes

            with course.phase("indexes") as details:
                # The new schema is in force already: a missing index costs time, no answer.
                held_up = indexes.build(owner)
                details["left_for_the_next_run"] = held_up
            with course.phase("grants"):
                roles.grant_data(owner, server=settings.server_user)
                outbox.create(owner, server=settings.server_user, restored_from=settings.restored_from)
            with course.phase("verify"):
                _verify(owner, expected=[each for each in indexes.INDEXES if each not in held_up])


def _seen(owner: Connection) -> list[str]:
    """The schema's head, and the older ones that it serves; nothing if there is none yet."""
    with owner.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.alembic_version') IS NOT NULL")
        row = cursor.fetchone()
    return admission.seen(owner) if row and row[0] else []


def _pending(before: list[str], environment: str) -> list[Revision]:
    """The revisions to apply to a database that has a schema, the newest first."""
    known = revisions.installed()
    if not before or known.head in before:
        return []
    if before[0] not in known.by_id:
        raise MigrationError(
            f"the database's schema is {before[0]}, which this MLflow does not know (it needs {known.head}) "
            "and cannot use: a newer version has migrated it. Deploy that version, or restore the snapshot "
            f"that was taken before its migration: `make restore ENV={environment} SNAPSHOT=…`."
        )
    return known.pending(before[0])


def _drain(owner: Connection, settings: MigrationSettings, course: _Course, why: list[str]) -> None:
    course.drains()
    with course.phase("drain") as details:
        details["because_of"] = why
        details["sessions_ended"] = drain(owner, server=settings.server_user)
    if settings.database_arn is None:
        return
    with course.phase("snapshot") as details:
        called = snapshots.name(
            settings.environment, head=schema.installed().head, now=dt.datetime.now(dt.UTC)
        )
        details["snapshot"] = called
        snapshots.take(settings.database_arn, called, seconds=settings.snapshot_hours * 3600.0)
        course.snapshot = called


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


def _can_migrate(settings: MigrationSettings, course: _Course) -> bool:
    """Whether the roles exist, so that the master user is not needed.

    Asking first means that only the first run reads the master secret.

    Raises:
        psycopg2.OperationalError: the database cannot be reached, or refuses the token of a role that exists.
    """
    with course.phase("connect") as details:
        try:
            with closing(connect(settings.database, settings.migrator, application=_APPLICATION)) as owner:
                ready = roles.complete(owner, migrator=settings.migrator, server=settings.server_user)
        except psycopg2.OperationalError as error:
            if not _is_unknown_user(error):
                raise
            ready = False
        details["roles"] = "present" if ready else "missing"
    return ready


def _create_roles(settings: MigrationSettings, course: _Course) -> None:
    with course.phase("roles"), closing(_connect_as_master(settings)) as master:
        master.autocommit = True
        with _locked(master, course):
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


def _upgrade_schema(
    owner: Connection, settings: MigrationSettings, course: _Course, before: list[str]
) -> None:
    import sqlalchemy
    from mlflow.store.db import utils
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if schema.installed().head not in before:
        # One session for all: if it ends, so do the transaction and the locks.
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg2://", creator=lambda: owner, poolclass=sqlalchemy.pool.StaticPool
        )
        waiting = Patience(
            "migrate", seconds=_TABLE_PATIENCE_SECONDS, poll=_TABLE_POLL_SECONDS, phase="schema"
        )
        with course.phase("schema") as details:
            details["schema"] = schema.installed().head
            if before:
                # Before it is true, since it is asked about the head that is in force.
                _tell_whom_it_serves(owner)
            while not _upgraded(owner, engine, utils):
                if not waiting.wait("a transaction of the server holds a table"):
                    raise MigrationError(
                        f"a table was held for {waiting.seconds:.0f} s: see pg_stat_activity"
                    )
            course.changed = True
            if not before:
                _tell_whom_it_serves(owner)
    uri = store_uri(settings.database, settings.migrator, application_name=_APPLICATION)
    with course.phase("store"):
        # Creates the default experiment, which two servers starting at once would both try to.
        utils._verify_schema = lambda _engine: None
        SqlAlchemyStore(uri, settings.artifact_root)._dispose_engine()


def _upgraded(owner: Connection, engine: Engine, utils: ModuleType) -> bool:
    """Run MLflow's migrations in one transaction; False if a table was not free, and nothing is changed."""
    with owner.cursor() as cursor:
        # Whoever waits for a table keeps all others waiting behind.
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", (_LOCK_TIMEOUT,))
    owner.autocommit = False
    try:
        run = utils._initialize_tables if utils._is_empty_database(engine) else utils._upgrade_db
        run(engine)
    except OperationalError as error:
        if isinstance(error.orig, errors.LockNotAvailable):
            return False
        raise
    finally:
        if not owner.closed:
            owner.rollback()
            owner.autocommit = True
    return True


def _tell_whom_it_serves(owner: Connection) -> None:
    known = revisions.installed()
    with owner.cursor() as cursor:
        cursor.execute("SELECT obj_description('alembic_version'::regclass, 'pg_class')")
        row = cursor.fetchone()
        served = json.loads((row and row[0]) or "{}") | {known.head: known.served()}
        cursor.execute("COMMENT ON TABLE alembic_version IS %s", (json.dumps(served),))


def _verify(owner: Connection, *, expected: list[str]) -> None:
    if wrong := differences(owner, indexes=expected):
        raise RuntimeError(f"the schema is not what MLflow expects: {'; '.join(wrong)}")


@contextmanager
def _locked(connection: Connection, course: _Course) -> Iterator[None]:
    """Hold the migration's advisory lock in this session; wait up to an hour for it."""
    waiting = Patience("migrate", seconds=_LOCK_PATIENCE_SECONDS, poll=_LOCK_POLL_SECONDS, phase="lock")
    with course.phase("lock"), connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (admission.MIGRATION_LOCK,))
            row = cursor.fetchone()
            if row and row[0]:
                break
            if not waiting.wait("another migration, or an operation, is running"):
                raise MigrationError(
                    "another migration, or an operation, has held the lock for "
                    f"{_LOCK_PATIENCE_SECONDS:.0f} s: "
                    "look at its output, or end its session (pg_locks, locktype advisory)"
                )
    try:
        yield
    finally:
        if not connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", (admission.MIGRATION_LOCK,))


def _reached(settings: MigrationSettings) -> AbstractContextManager[None]:
    return _explained(
        "connect",
        "Look at the database's security group and endpoint, and at the task role's policy: "
        f"rds-db:connect for {settings.migrator}.",
    )


@contextmanager
def _explained(name: str | Callable[[], str], remedy: str | Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except MigrationError:
        raise
    except Exception as error:
        kind = "the token is refused" if _is_token_refused(error) else type(error).__name__
        where, what_next = (each if isinstance(each, str) else each() for each in (name, remedy))
        raise MigrationError(f"phase {where} failed: {kind}: {_one_line(error)}. {what_next}") from error


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
