"""After a migration: whether the schema is what the servers of this image count on."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from mlflow_aws_server.database.admission import seen
from mlflow_aws_server.schema import installed

# MLflow 3.17.2 declares it, and none of its migrations makes it.
_MADE_BY_NO_MIGRATION = frozenset(("index_issues_created_by",))


def differences(connection: Connection, *, indexes: Iterable[str]) -> list[str]:
    """What is not as it should be: the head, a table, or one of MLflow's indexes and of ours, `indexes`."""
    from mlflow.store.db.base_sql_model import Base

    found = []
    if installed().head not in (heads := seen(connection)):
        found.append(f"the head is {heads}, not {installed().head}")
    declared = {each.name for table in Base.metadata.tables.values() for each in table.indexes}
    expected = {*declared, *indexes} - _MADE_BY_NO_MIGRATION
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = {row[0] for row in cursor.fetchall()}
        cursor.execute(
            "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
            " WHERE relnamespace = 'public'::regnamespace"
        )
        valid = dict(cursor.fetchall())
    found += [f"there is no table {each}" for each in sorted(set(Base.metadata.tables) - tables)]
    found += [f"there is no index {each}" for each in sorted(expected - set(valid))]
    found += [f"the index {each} is not valid" for each in sorted(valid) if not valid[each]]
    return found
