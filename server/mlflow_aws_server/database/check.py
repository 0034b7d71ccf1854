"""Readiness's check of the database, over one connection of its own."""

from __future__ import annotations

import logging

from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from mlflow_aws_server import schema
from mlflow_aws_server.database.connect import connect
from mlflow_aws_server.settings import ServerSettings

_logger = logging.getLogger(__name__)


class DatabaseCheck:
    """Checks that the database answers and has the schema that this MLflow needs.

    The connection is kept between checks and replaced after a failure. Not for use by two threads at
    once.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._wanted = schema.installed().head
        self._connection: Connection | None = None

    def __call__(self) -> None:
        """Return if all is well.

        Raises:
            psycopg2.Error: the database does not answer.
            RuntimeError: it has another schema.
        """
        # A connection kept from earlier may have died in a failover.
        reused = self._connection is not None
        try:
            seen = self._revision()
        except Exception:
            self.close()
            if not reused:
                raise
            seen = self._revision()
        if seen != self._wanted:
            raise RuntimeError(f"the database's schema is {seen}, this MLflow needs {self._wanted}")

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _revision(self) -> str | None:
        if self._connection is None:
            self._connection = connect(
                self._settings.database, self._settings.database_user, application="mlflow-ready"
            )
            self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                cursor.execute("SHOW statement_timeout")
                if cursor.fetchone() == ("0",):
                    _logger.warning(
                        "the role %s has no time limits: run `migrate`", self._settings.database_user
                    )
        with self._connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '3s'")
            cursor.execute("SELECT version_num FROM alembic_version")
            row = cursor.fetchone()
        return str(row[0]) if row else None
