"""Readiness's check of the database, over one connection of its own."""

from __future__ import annotations

import logging

from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from mlflow_aws_server import schema
from mlflow_aws_server.database import admission
from mlflow_aws_server.database.connect import connect
from mlflow_aws_server.settings import ServerSettings

_logger = logging.getLogger(__name__)


class DatabaseCheck:
    """Checks that the database answers and has a schema that serves this MLflow, or is about to.

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
            RuntimeError: it has a schema that does not.
        """
        # A connection kept from earlier may have died in a failover.
        reused = self._connection is not None
        try:
            self._look()
        except Exception:
            self.close()
            if not reused:
                raise
            self._look()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look(self) -> None:
        try:
            self._connection = self._connection or self._opened()
            with self._connection.cursor() as cursor:
                cursor.execute("SET statement_timeout = '3s'")
            found = admission.seen(self._connection)
        except admission.SessionRefusedError:
            if admission.STATE.state == "drained":
                # Those who call it are told to come back, which a replacement could not tell them.
                return
            raise
        if not admission.STATE.saw(found):
            raise RuntimeError(f"the database's schema is {found}, this MLflow needs {self._wanted}")

    def _opened(self) -> Connection:
        opened = connect(self._settings.database, self._settings.database_user, application="mlflow-ready")
        try:
            opened.autocommit = True
            admission.admit(opened)
            with opened.cursor() as cursor:
                cursor.execute("SHOW statement_timeout")
                if cursor.fetchone() == ("0",):
                    _logger.warning(
                        "the role %s has no time limits: run `migrate`", self._settings.database_user
                    )
        except BaseException:
            opened.close()
            raise
        return opened
