"""The outbox: an event is a row of the transaction that it tells of, until EventBridge has it.

`about` is what events keep their order for: a model's come one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModel
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class
from psycopg2.sql import SQL, Identifier
from sqlalchemy import event, text

from mlflow_aws_server.shares import CALLER

_TABLES = """
CREATE SCHEMA IF NOT EXISTS mlflow_aws;
CREATE TABLE IF NOT EXISTS mlflow_aws.events (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    type text NOT NULL,
    about text NOT NULL,
    detail text NOT NULL,
    attempts int NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS mlflow_aws.dispatcher (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), owner uuid, until timestamptz NOT NULL DEFAULT now()
);
INSERT INTO mlflow_aws.dispatcher DEFAULT VALUES ON CONFLICT DO NOTHING;
GRANT USAGE ON SCHEMA mlflow_aws TO {server};
GRANT SELECT, INSERT, UPDATE, DELETE ON mlflow_aws.events TO {server};
GRANT SELECT, UPDATE ON mlflow_aws.dispatcher TO {server};
"""
_ADD = "INSERT INTO mlflow_aws.events (type, about, detail) VALUES "
ADD = _ADD + "($1, $2, $3)"
_ADD_BY_SQLALCHEMY = text(_ADD + "(:type, :about, :detail)")
_RESTORED_FROM = "SELECT obj_description('mlflow_aws.events'::regclass, 'pg_class')"

_REGISTERED = (SqlRegisteredModel, SqlModelVersion)
_PROMPT = "mlflow.prompt.is_prompt"
_PRINCIPAL = "mlflow_aws.principal"


class Outbox:
    """Where this process writes events into, once it is told to `keep` them."""

    def __init__(self) -> None:
        self._kept = False

    def keep(self) -> None:
        """Begin, with registrations too, which have no other sign than their rows."""
        self._kept = True
        for table in _REGISTERED:
            event.listen(table, "after_insert", self._registered)

    def ignore(self) -> None:
        """End it."""
        self._kept = False
        for table in _REGISTERED:
            event.remove(table, "after_insert", self._registered)

    def add(self, connection: Any, kind: str, *, about: str, detail: Mapping[str, Any]) -> None:
        """Write an event in the transaction of this connection of SQLAlchemy."""
        if self._kept:
            row = {"type": kind, "about": about, "detail": written(detail)}
            connection.execute(_ADD_BY_SQLALCHEMY, row)

    def _registered(self, _mapper: Any, connection: Any, row: Any) -> None:
        if isinstance(row, SqlRegisteredModel):
            kind: str = "Model Registered"
            more: dict[str, Any] = {"prompt": _is_prompt(row.registered_model_tags)}
            principal = CALLER.get()
        else:
            tags = {tag.key: tag.value for tag in row.model_version_tags}
            kind, more = "Model Version Registered", {"version": str(row.version), "run_id": row.run_id}
            principal = tags.get(_PRINCIPAL) or CALLER.get()
        detail = {"principal": principal or None, "model": row.name, **more}
        self.add(connection, kind, about=row.name, detail=detail)


OUTBOX = Outbox()


def written(detail: Mapping[str, Any]) -> str:
    """The detail as it is kept."""
    return json.dumps(detail, separators=(",", ":"))


def create(owner: Connection, *, server: str, restored_from: str | None) -> None:
    """As the migrator: make the tables, and tell once that the database was restored from a snapshot."""
    with owner.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            cursor.execute(SQL(_TABLES).format(server=Identifier(server)))
            cursor.execute(_RESTORED_FROM)
            row = cursor.fetchone()
            if restored_from and row != (restored_from,):
                cursor.execute("COMMENT ON TABLE mlflow_aws.events IS %s", (restored_from,))
                add(cursor, "Database Restored", {"snapshot": restored_from})
            cursor.execute("COMMIT")
        except BaseException:
            if not owner.closed:
                cursor.execute("ROLLBACK")
            raise


def add(cursor: Any, kind: str, detail: Mapping[str, Any]) -> None:
    """Write an event of an operation, in the transaction of this cursor of psycopg2."""
    row = (kind, kind, written({"principal": None, **detail}))
    cursor.execute(_ADD + "(%s, %s, %s)", row)


def _is_prompt(tags: Any) -> bool:
    return any(tag.key == _PROMPT and tag.value == "true" for tag in tags)
