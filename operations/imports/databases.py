"""Reading MLflow's tables from PostgreSQL, MySQL or SQLite, in one snapshot and bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operations.command import Say
from operations.errors import CannotRunError, FailedError
from operations.imports.archive import NOT_READ, Archive

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

_BATCH = 5_000
# Where the password comes from: a command line is seen by every process of the machine.
_PASSWORDS = {"postgresql": "PGPASSWORD or ~/.pgpass", "mysql": "MYSQL_PWD"}
_SNAPSHOTS = {
    "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "mysql": "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    "sqlite": "BEGIN",
}
_DRIVERS = {"postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql", "sqlite": "sqlite"}


def parsed(url: str, environ: dict[str, str]) -> URL:
    """The URL as SQLAlchemy takes it, with the password from where it belongs.

    Raises:
        CannotRunError: it is none of a database that MLflow's tables can be read from.
    """
    import sqlalchemy

    try:
        found = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        raise CannotRunError(f"FROM is not the URL of a database: {error}") from error
    backend = found.get_backend_name()
    if backend not in _DRIVERS:
        raise CannotRunError(f"FROM is a database of {backend}: PostgreSQL, MySQL and SQLite can be read")
    if found.password is not None:
        raise CannotRunError(
            f"leave the password out of FROM, where other processes see it: put it into {_PASSWORDS[backend]}"
        )
    if backend == "sqlite":
        path = Path(found.database or "").absolute()
        if not path.is_file():
            raise CannotRunError(f"there is no SQLite database {path}")
        # Never made, never written.
        return sqlalchemy.make_url(f"sqlite:///file:{path}?mode=ro&uri=true")
    password = environ.get("MYSQL_PWD") if backend == "mysql" else None
    return found.set(drivername=_DRIVERS[backend], password=password)


def read(url: URL, begin: Callable[[str], Archive], say: Say) -> Archive:
    """Read every table of MLflow's into the archive that `begin` makes for the schema's revision.

    Raises:
        CannotRunError: it cannot be reached, or is not an MLflow database that this version knows.
        FailedError: PostgreSQL cannot hold a value.
    """
    import sqlalchemy
    from sqlalchemy.exc import DBAPIError

    backend = url.get_backend_name()
    try:
        engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(_SNAPSHOTS[backend])
            return _read(connection, backend, begin, say)
    except ImportError as error:
        raise CannotRunError(f"reading {backend} needs a driver: {error}; pip install pymysql") from error
    except DBAPIError as error:
        raise CannotRunError(f"the source answers: {' '.join(str(error.orig).split())}") from error


def _read(connection: Connection, backend: str, begin: Callable[[str], Archive], say: Say) -> Archive:
    import sqlalchemy

    inspector = sqlalchemy.inspect(connection)
    present = set(inspector.get_table_names())
    archive = begin(_revision(connection, present))
    quote = connection.dialect.identifier_preparer.quote
    for table in sorted(present & mlflow_tables()):
        if table in NOT_READ:
            rows = connection.exec_driver_sql(f"SELECT count(*) FROM {quote(table)}").scalar()  # noqa: S608
            archive.leave_out(table, int(rows or 0))
            continue
        # A computed column is computed again.
        columns = [each["name"] for each in inspector.get_columns(table) if "computed" not in each]
        query = f"SELECT {', '.join(map(quote, columns))} FROM {quote(table)}"  # noqa: S608 - of the schema
        with archive.part(table, table, columns) as part:
            if backend == "postgresql":
                with _cursor(connection) as cursor:
                    cursor.copy_expert(f"COPY ({query}) TO STDOUT", part)
            else:
                result = connection.execution_options(stream_results=True).exec_driver_sql(query)
                # Not from the cursor: SQLAlchemy has read the first row of it.
                while rows := result.fetchmany(_BATCH):
                    part.add(rows)
        there = connection.exec_driver_sql(f"SELECT count(*) FROM {quote(table)}").scalar()  # noqa: S608
        if part.rows != there:
            raise FailedError(
                f"{table} has {there} rows, and {part.rows} were read: import again, and report it"
            )
        if part.rows:
            say(f"read {table}: {part.rows:,} rows")
    return archive


def _revision(connection: Connection, present: set[str]) -> str:
    if "alembic_version" not in present:
        raise CannotRunError(
            "the source has no table alembic_version: it is not MLflow's, or from before MLflow 1.0. Run "
            "`mlflow db upgrade` of MLflow 1.30 or later on it first"
        )
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    if len(found) != 1:
        raise CannotRunError(f"alembic_version has the revisions {found}: run `mlflow db upgrade` first")
    return known(found[0])


def known(revision: str) -> str:
    """The revision, if this version's MLflow has it.

    Raises:
        CannotRunError: it is of a later MLflow.
    """
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.version import VERSION

    try:
        ScriptDirectory.from_config(_get_alembic_config("")).get_revision(revision)
    except CommandError as error:
        raise CannotRunError(
            f"the source's schema has the revision {revision}, which MLflow {VERSION} does not know: "
            "the source is newer. Upgrade the deployment first"
        ) from error
    return revision


def mlflow_tables() -> frozenset[str]:
    """The names of MLflow's own tables: what else is in a database is not read."""
    import mlflow.store.db.utils  # noqa: F401 - it imports every table
    from mlflow.store.db.base_sql_model import Base

    return frozenset(Base.metadata.tables)


@contextmanager
def _cursor(connection: Connection) -> Iterator[Any]:
    cursor = connection.connection.cursor()
    try:
        yield cursor
    finally:
        cursor.close()
