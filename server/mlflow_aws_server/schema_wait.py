"""Before the server starts: wait until the migration has brought the schema to this MLflow's head.

MLflow itself would create or upgrade the schema when it starts, without a lock. This server cannot
(its database role has no DDL), so on an empty or older database it waits for `migrate`.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg2
from botocore.exceptions import BotoCoreError
from psycopg2 import errors

from mlflow_aws_server import schema
from mlflow_aws_server.database import admission
from mlflow_aws_server.database.connect import connect
from mlflow_aws_server.database.token import NoCredentialsError
from mlflow_aws_server.progress import Patience, report
from mlflow_aws_server.settings import ServerSettings

PATIENCE_SECONDS = 300.0
_POLL_SECONDS = 1.0


class SchemaNotReadyError(RuntimeError):
    """The database cannot serve this MLflow; the message says what was seen and what to do."""


def wait_for_schema(
    settings: ServerSettings,
    *,
    patience: float = PATIENCE_SECONDS,
    look: Callable[[ServerSettings], str] | None = None,
) -> None:
    """Return when the database's schema is the one this MLflow needs.

    Raises:
        SchemaNotReadyError: it is newer than this MLflow, or still missing after `patience` seconds.
    """
    look = look or revision
    wanted = schema.installed()
    waiting = Patience("serve", seconds=patience, poll=_POLL_SECONDS)
    while True:
        try:
            seen = look(settings)
            problem = (
                f"its schema is {seen or 'empty'}, this MLflow needs {wanted.head}: waiting for `migrate`"
            )
        except (psycopg2.Error, NoCredentialsError, BotoCoreError) as error:
            seen, problem = "", _first_line(error)
        if seen == wanted.head:
            report("serve", schema=seen, waited_ms=round(waiting.waited * 1000))
            return
        if seen and seen not in wanted.known:
            raise SchemaNotReadyError(
                f"the database's schema is {seen}, which this MLflow does not know (it needs {wanted.head}): "
                "a newer version has migrated it. Deploy that version, or restore the snapshot taken before "
                "its migration."
            )
        if not waiting.wait(problem):
            raise SchemaNotReadyError(
                f"the database is not ready after {patience:.0f} s: {problem}. Run `migrate` with this image "
                "and look at its output."
            )


def revision(settings: ServerSettings) -> str:
    """The database's schema revision, as the server's role sees it; "" if it sees none yet.

    A newer one that serves this MLflow too counts as this MLflow's own.

    Raises:
        psycopg2.Error: the database cannot be reached, or a migration drains it.
    """
    connection = connect(settings.database, settings.database_user, application="mlflow-start")
    try:
        admission.take(connection)
        found = admission.seen(connection)
        return schema.installed().head if schema.installed().head in found else found[0] if found else ""
    except (errors.UndefinedTable, errors.InsufficientPrivilege):
        # `migrate` grants the table last, so that no server starts on a half-migrated database.
        return ""
    finally:
        connection.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
