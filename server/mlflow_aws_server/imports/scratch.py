"""The scratch schema: the source's tables at the source's revision, migrated to this MLflow's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import starmap
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Identifier

from mlflow_aws_server import schema
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.imports import archive
from mlflow_aws_server.imports.archive import Archive

SCHEMA = "mlflow_import"


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key of a table in the scratch schema; names of tables are qualified."""

    table: str
    name: str
    definition: str
    columns: list[str]
    parent: str
    parent_columns: list[str]


@contextmanager
def scratch_schema(cursor: Any) -> Iterator[None]:
    """An empty schema, gone at the end; one that a killed import left goes first."""
    drop = SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(SCHEMA))
    cursor.execute(drop)
    cursor.execute(SQL("CREATE SCHEMA {}").format(Identifier(SCHEMA)))
    try:
        yield
    finally:
        if not cursor.connection.closed:
            cursor.execute(drop)


def create_tables(cursor: Any, uri: str, revision: str) -> list[ForeignKey]:
    """Make MLflow's tables as they were at `revision`, without their foreign keys, which are returned.

    SQLite and `mlruns/` hold rows whose parents are gone, and folders number experiments beyond MLflow's
    column: both can be loaded. `uri` has the schema as its search path.

    Raises:
        OperationError: this MLflow does not know the revision.
    """
    installed = schema.installed()
    if revision not in installed.known:
        raise OperationError(
            f"the source's schema has the revision {revision}, which this deployment's MLflow does not know: "
            "the source is newer. Upgrade the deployment first, or export from the release that it runs."
        )
    if revision == installed.head:
        keys = _copy_tables(cursor)
    else:
        _create_initial_tables(uri)
        upgrade(uri, revision)
        keys = take_off_foreign_keys(cursor)
    widen_ids(cursor)
    return keys


def _copy_tables(cursor: Any) -> list[ForeignKey]:
    """The same tables as the deployment's own, which are at that revision."""
    cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in cursor.fetchall():
        cursor.execute(
            # Without indexes, which take longer than the rows.
            SQL("CREATE UNLOGGED TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)").format(
                Identifier(SCHEMA, table), Identifier("public", table)
            )
        )
    cursor.execute(_FOREIGN_KEYS, ("public",))
    return [
        replace(key, table=f"{SCHEMA}.{key.table}", parent=f"{SCHEMA}.{key.parent}")
        for key in starmap(ForeignKey, cursor.fetchall())
    ]


def _create_initial_tables(uri: str) -> None:
    import sqlalchemy
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = sqlalchemy.create_engine(uri)
    try:
        Base.metadata.create_all(engine)
    finally:
        engine.dispose()


def upgrade(uri: str, revision: str = "heads") -> None:
    """Run MLflow's migrations up to `revision`, in one transaction."""
    import sqlalchemy
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.begin() as connection:
            config = _get_alembic_config(uri)
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        engine.dispose()


def load(cursor: Any, client: Any, bucket: str, prefix: str, source: Archive) -> dict[str, int]:
    """Copy every part into its table, in autocommit; returns the rows of each table.

    Raises:
        OperationError: a row does not fit MLflow's schema, or a part is not what its manifest says.
    """
    counts: dict[str, int] = {}
    for part in source.parts:
        statement = SQL("COPY {} ({}) FROM STDIN").format(
            Identifier(SCHEMA, part.table), SQL(", ").join(map(Identifier, part.columns))
        )
        try:
            with archive.rows(client, bucket, prefix, part) as text:
                cursor.copy_expert(statement, text, 1 << 18)
        except (psycopg2.DataError, psycopg2.IntegrityError, psycopg2.ProgrammingError) as error:
            raise OperationError(
                f"{part.file} does not fit MLflow's table {part.table} at revision {source.revision}: "
                f"{' '.join(str(error).split())}. Correct the row in the source, and import again."
            ) from error
        if cursor.rowcount != part.rows:
            raise OperationError(
                f"{part.file} has {cursor.rowcount} rows, and its manifest says {part.rows}. "
                "Run `make import` again."
            )
        counts[part.table] = counts.get(part.table, 0) + part.rows
    return counts


def widen_ids(cursor: Any) -> None:
    """Make room for any number of an experiment; those that do not fit MLflow's column are mapped."""
    cursor.execute(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = %s"
        " AND column_name = 'experiment_id' AND data_type = 'integer'",
        (SCHEMA,),
    )
    for (table,) in cursor.fetchall():
        cursor.execute(
            SQL("ALTER TABLE {} ALTER experiment_id TYPE bigint").format(Identifier(SCHEMA, table))
        )


def take_off_foreign_keys(cursor: Any) -> list[ForeignKey]:
    """Drop every foreign key; returns them."""
    cursor.execute(_FOREIGN_KEYS, (SCHEMA,))
    keys = list(starmap(ForeignKey, cursor.fetchall()))
    for key in keys:
        cursor.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(SQL(key.table), Identifier(key.name)))
    return keys


def drop_unique_constraints(cursor: Any) -> None:
    """Let ids and names be mapped set by set: for a moment two rows may have the same."""
    cursor.execute(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint"
        " WHERE connamespace = %s::regnamespace AND contype IN ('p', 'u')",
        (SCHEMA,),
    )
    for table, name in cursor.fetchall():
        cursor.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(SQL(table), Identifier(name)))
    cursor.execute(
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
        " WHERE relnamespace = %s::regnamespace AND indisunique",
        (SCHEMA,),
    )
    for (index,) in cursor.fetchall():
        cursor.execute(SQL("DROP INDEX {}").format(SQL(index)))


def remove_orphans(cursor: Any, keys: list[ForeignKey]) -> dict[str, int]:
    """Delete the rows whose parent does not exist, until every one has; returns how many of each table."""
    removed: dict[str, int] = {}
    found = True
    while found:
        found = False
        for key in keys:
            cursor.execute(
                SQL(
                    "DELETE FROM {} WHERE ({}) IS NOT NULL"
                    " AND NOT EXISTS (SELECT FROM {} parent WHERE ({}) = ({}))"
                ).format(
                    SQL(key.table),
                    SQL(", ").join(Identifier(*key.table.split("."), column) for column in key.columns),
                    SQL(key.parent),
                    SQL(", ").join(Identifier("parent", column) for column in key.parent_columns),
                    SQL(", ").join(Identifier(*key.table.split("."), column) for column in key.columns),
                )
            )
            if cursor.rowcount:
                found = True
                table = key.table.rpartition(".")[2]
                removed[table] = removed.get(table, 0) + cursor.rowcount
    return removed


def restore(cursor: Any, keys: list[ForeignKey]) -> None:
    """Put back what was taken off: MLflow's migrations refer to foreign keys by name."""
    for key in keys:
        cursor.execute(
            SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                SQL(key.table), Identifier(key.name), SQL(key.definition)
            )
        )


_FOREIGN_KEYS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(c.oid),
       (SELECT array_agg(attname::text ORDER BY n) FROM unnest(conkey) WITH ORDINALITY AS k (number, n)
          JOIN pg_attribute ON attrelid = conrelid AND attnum = number),
       confrelid::regclass::text,
       (SELECT array_agg(attname::text ORDER BY n) FROM unnest(confkey) WITH ORDINALITY AS k (number, n)
          JOIN pg_attribute ON attrelid = confrelid AND attnum = number)
  FROM pg_constraint c WHERE connamespace = %s::regnamespace AND contype = 'f'
"""
