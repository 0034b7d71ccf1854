"""Which sessions of the server's role may work: none while a migration drains them, none on another's schema.

Each takes an advisory lock, shared with the others, when it opens, and keeps it until it ends; a migration
beside which no older server can work takes it alone. PostgreSQL gives a lock back when its session ends,
however it ends: after a migration that died, the servers go on.

Which older heads a newer schema serves, the migration writes into the comment of MLflow's table of the head.

One-off operations keep to it too: those of the server's role are drained with it, and those of the schema's
owner and a migration exclude each other.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from mlflow_aws_server import schema
from mlflow_aws_server.errors import OperationError, UnavailableError

_log = logging.getLogger(__name__)

MIGRATION_LOCK = 0x6D6C666C6F77
""""mlflow" in ASCII: one lock for every version of this program."""
DRAIN_LOCK = MIGRATION_LOCK + 1

# A session of a reader can take no lock that the writer's session knows of.
_TAKE = f"SELECT CASE WHEN pg_is_in_recovery() THEN true ELSE pg_try_advisory_lock_shared({DRAIN_LOCK}) END"
# A statement of its own: one that takes the lock may see what was there before it.
HEAD = "SELECT version_num, obj_description('alembic_version'::regclass, 'pg_class') FROM alembic_version"

DRAINED = (
    "MLflow is being upgraded, and its database takes no calls meanwhile. Send the call again; MLflow's "
    "clients do so by themselves, for eight minutes."
)
OUTDATED = (
    "This server is older than the database, which a newer version has taken over. Send the call again."
)
_UNDER_WAY = (
    "the database is being upgraded, or a newer version has taken it over. Nothing was done: run it again "
    "when the deployment has ended."
)


class SchemaRefusedError(UnavailableError):
    """The database takes no calls from this server, for now or for ever."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.retry_after = STATE.retry_after


class SessionRefusedError(psycopg2.OperationalError):
    """The same, where SQLAlchemy expects an error of its driver."""


@dataclass(slots=True)
class SchemaState:
    """What this process was told by the session that it opened or looked with last."""

    state: str = "unknown"
    """`current`, `newer` (and serving this server too), `drained` or `outdated`."""
    head: str | None = None
    _since: float = field(default_factory=time.monotonic)

    @property
    def retry_after(self) -> int:
        """Seconds until a refused call is to be sent again: few at first, since most drains are short.

        MLflow's client does so seven times: for eight minutes if it was refused at once, which a snapshot may
        need, and for longer if later.
        """
        return max(5, min(120, round(2 * (time.monotonic() - self._since))))

    @property
    def refusing(self) -> bool:
        """Whether stock MLflow's errors are because of it."""
        return self.state in ("drained", "outdated")

    def said(self) -> dict[str, str | None]:
        """For an answer in JSON."""
        return {"state": self.state, "head": self.head}

    def drained(self) -> None:
        """A migration has the lock for itself."""
        self._become("drained", self.head)

    def saw(self, found: list[str]) -> bool:
        """Whether the schema, of which `heads` has found this, serves this server."""
        wanted = schema.installed().head
        head = found[0] if found else None
        serves = wanted in found
        self._become("current" if head == wanted else "newer" if serves else "outdated", head)
        return serves

    def _become(self, state: str, head: str | None) -> None:
        changed = (state, head) != (self.state, self.head)
        self.state, self.head = state, head
        if changed:
            self._since = time.monotonic()
        if changed and state != "current":
            _log.warning("the schema is %s: %s, this MLflow needs %s", state, head, schema.installed().head)
        elif changed:
            _log.info("the schema is current: %s", head)


STATE = SchemaState()


def heads(rows: list[tuple[str, str | None]]) -> list[str]:
    """From the rows of `HEAD`: the schema's head, and then the older ones that it serves.

    Two heads are one that nobody knows.
    """
    if len(rows) != 1:
        return [" and ".join(row[0] for row in rows)] if rows else []
    head, comment = rows[0]
    return [head, *json.loads(comment or "{}").get(head, [])]


def take(connection: Connection) -> None:
    """Take the lock with others.

    Raises:
        SessionRefusedError: a migration has it.
    """
    if not _rows(connection, _TAKE)[0][0]:
        STATE.drained()
        raise SessionRefusedError(DRAINED)


def admit(connection: Connection) -> None:
    """Let a new session work.

    Raises:
        SessionRefusedError: it must not.
        psycopg2.Error: the database does not answer, or has no schema yet.
    """
    take(connection)
    if not STATE.saw(seen(connection)):
        raise SessionRefusedError(OUTDATED)


def admit_operation(connection: Connection) -> None:
    """Let a one-off operation of the server's role work; a drain ends its session as it ends the server's.

    Raises:
        OperationError: it must not; nothing was done.
    """
    try:
        admit(connection)
    except SessionRefusedError as error:
        raise OperationError(_UNDER_WAY) from error


def keep_migrations_away(connection: Connection) -> None:
    """Let an operation of the schema's owner work: a migration waits until this session has ended.

    It waits before it drains the servers, so they go on meanwhile.

    Raises:
        OperationError: a migration is under way; nothing was done.
    """
    if not _rows(connection, f"SELECT pg_try_advisory_lock_shared({MIGRATION_LOCK})")[0][0]:
        raise OperationError(_UNDER_WAY)


def seen(connection: Connection) -> list[str]:
    """The schema's head, and then the older ones that it serves."""
    return heads(_rows(connection, HEAD))


def _rows(connection: Connection, question: str) -> list[tuple[str, str | None]]:
    before, connection.autocommit = connection.autocommit, True
    try:
        with connection.cursor() as cursor:
            cursor.execute(question)
            return list(cursor.fetchall())
    finally:
        connection.autocommit = before


async def admit_async(connection: object) -> None:
    """The same for a session of asyncpg.

    Raises:
        SchemaRefusedError: it must not.
        asyncpg.PostgresError: the database has no schema yet.
    """
    if not await connection.fetchval(_TAKE):  # type: ignore[attr-defined]
        STATE.drained()
        raise SchemaRefusedError(DRAINED)
    if not STATE.saw(heads(await connection.fetch(HEAD))):  # type: ignore[attr-defined]
        raise SchemaRefusedError(OUTDATED)
