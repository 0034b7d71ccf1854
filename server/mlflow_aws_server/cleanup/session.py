"""The session of the database that a clean-up works in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
from botocore.exceptions import BotoCoreError, ClientError

from mlflow_aws_server.cleanup.objects import ObjectsError
from mlflow_aws_server.database.admission import admit_operation
from mlflow_aws_server.database.connect import connect
from mlflow_aws_server.database.token import NoCredentialsError
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.settings import CleanupSettings

# "gcmlflow" in ASCII: two at once would only wait for each other's rows.
_LOCK = 0x67636D6C666C6F77


@contextmanager
def session(settings: CleanupSettings, command: str, *, readonly: bool) -> Iterator[Any]:
    """A connection with the server's role, whose work nobody waits for, and beside which no other cleans up.

    Raises:
        OperationError: it ended early, whatever of the database or of S3 was the cause.
    """
    try:
        with closing(
            connect(settings.database, settings.database_user, application=f"mlflow-{command}")
        ) as connection:
            admit_operation(connection)
            connection.set_session(autocommit=False, readonly=readonly)
            with connection.cursor() as cursor:
                # The role's limits are for requests, which somebody waits for.
                cursor.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
                cursor.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
                if cursor.fetchone() == (False,):
                    raise OperationError("another clean-up is running: wait for its end")
            yield connection
    except (psycopg2.Error, ClientError, BotoCoreError, NoCredentialsError, ObjectsError) as error:
        cause = " ".join(str(error).split())
        raise OperationError(
            f"{command} ended early: {type(error).__name__}: {cause}. Run it again."
        ) from error
