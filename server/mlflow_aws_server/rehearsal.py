"""A rehearsal of the migration on a scratch database, with everything that it holds compared.

The scratch database is a copy whose loss is meant. Nothing here asks which database it is: the task's role
can reach no other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from mlflow_aws_server import revisions, sample
from mlflow_aws_server.database import contents
from mlflow_aws_server.database.connect import connect, store_uri
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.migration import MigrationError, migrate
from mlflow_aws_server.progress import phase, report
from mlflow_aws_server.settings import MigrationSettings

_APPLICATION = "mlflow-rehearse"
# What a revision writes: the table in any of the statements that alembic and SQLAlchemy make.
_WRITES = re.compile(
    r"\s*(?:(?:CREATE|DROP|ALTER) TABLE(?: IF (?:NOT )?EXISTS)?|UPDATE|INSERT INTO|DELETE FROM"
    r"|CREATE (?:UNIQUE )?INDEX(?: IF NOT EXISTS)? \S+ ON)\s+\"?(?:public\.)?(\w+)",
    re.IGNORECASE,
)
_REVISION_TABLE = "alembic_version"
_FEW = 20


def rehearse(settings: MigrationSettings) -> dict[str, object]:
    """Migrate the scratch database as a deployment would, and tell what that changed.

    Raises:
        OperationError: the migration failed, or the database is not one of ours.
    """
    with closing(connect(settings.database, settings.migrator, application=_APPLICATION)) as owner:
        owner.autocommit = True
        begun = _revision(owner)
        pending = _pending(begun)
        report("rehearse", phase="begin", revision=begun, pending=len(pending))
        with phase("rows-before", event="rehearse") as details:
            size, before = _size(owner), contents.read(owner)
            details["rows"] = sum(table.rows for table in before.values())
        with phase("sample-before", event="rehearse") as details:
            stored = sample.as_stored(owner)
            details["answers"] = len(stored)
    started = time.monotonic()
    try:
        with _watched() as made:
            migrate(settings)
    except MigrationError as error:
        raise OperationError(
            f"the migration failed on the scratch database, as it would in the deployment: {error}"
        ) from error
    seconds = time.monotonic() - started
    with closing(connect(settings.database, settings.migrator, application=_APPLICATION)) as owner:
        owner.autocommit = True
        with phase("rows-after", event="rehearse"):
            head, grown, after = _revision(owner), _size(owner), contents.read(owner, only=before)
    with phase("sample-after", event="rehearse") as details:
        told = sample.as_told(
            stored,
            # As the server signs in, which needs its grants.
            store_uri=store_uri(settings.database, settings.server_user, application_name=_APPLICATION),
            artifact_root=settings.artifact_root,
        )
        wrong = [each for each in stored if stored[each] != told[each]]
        details["differing"] = len(wrong)
    tables = _tables(before, after, made)
    return {
        "from": begun,
        "to": head,
        "revisions": [
            {"revision": each.id, "drains": each.drains, **made.get(each.id, {"seconds": 0.0, "tables": []})}
            for each in reversed(pending)
        ],
        "drain": any(each.drains for each in pending),
        "migrate_seconds": round(seconds, 1),
        "bytes": {"before": size, "after": grown},
        "tables": tables,
        "answers": len(stored),
        "differences": [
            *(f"{each['table']}: {each['difference']}" for each in tables if each["difference"]),
            *(_difference(each, stored[each], told[each]) for each in wrong[:_FEW]),
            *([f"{len(wrong) - _FEW} answers more"] if len(wrong) > _FEW else []),
        ],
    }


def _pending(revision: str) -> list[revisions.Revision]:
    try:
        return revisions.installed().pending(revision)
    except KeyError:
        raise OperationError(
            f"the database is at revision {revision}, which this MLflow does not know: it was migrated by a "
            "newer one; deploy that version, or restore a snapshot from before it"
        ) from None


def _revision(owner: Connection) -> str:
    return str(_one(owner, f"SELECT version_num FROM {_REVISION_TABLE}"))  # noqa: S608 - a constant


def _size(owner: Connection) -> int:
    return int(_one(owner, "SELECT pg_database_size(current_database())"))


def _one(owner: Connection, query: str) -> Any:
    with owner.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        assert row is not None  # noqa: S101
        return row[0]


@contextmanager
def _watched() -> Iterator[dict[str, dict[str, Any]]]:
    """Note what each revision takes, and which tables it writes; alembic ends each by writing its name."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    made: dict[str, dict[str, Any]] = {}
    tables: set[str] = set()
    begun = None

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal begun
        begun = begun or time.monotonic()
        if (written := _WRITES.match(statement)) is None:
            return
        if written[1] != _REVISION_TABLE:
            tables.add(written[1])
        elif (named := re.search(r"'(\w+)'", statement)) is not None:
            now = time.monotonic()
            made[named[1]] = {"seconds": round(now - begun, 1), "tables": sorted(tables)}
            tables.clear()
            begun = now

    event.listen(Engine, "after_cursor_execute", executed)
    try:
        yield made
    finally:
        event.remove(Engine, "after_cursor_execute", executed)


def _tables(
    before: contents.Contents, after: contents.Contents, made: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What became of each table; a difference is what no revision explains, or rows that are gone."""
    told = []
    for name in sorted({*before, *after} - {_REVISION_TABLE}):
        old, new = before.get(name), after.get(name)
        by = [revision for revision, what in made.items() if name in what["tables"]]
        told.append(
            {
                "table": name,
                "before": old and old.rows,
                "after": new and new.rows,
                "changed": None not in (old, new) and old != new,
                "changed_by": by,
                "difference": _table_difference(old, new, by),
            }
        )
    return told


def _table_difference(old: contents.Table | None, new: contents.Table | None, by: list[str]) -> str:
    if old is None:
        return ""
    if new is None:
        return f"it is gone with {old.rows} rows" if old.rows or not by else ""
    if new.rows < old.rows:
        return f"{old.rows - new.rows} of {old.rows} rows are gone"
    if not by and (new.rows, new.columns, new.digest) != (old.rows, old.columns, old.digest):
        return "its values differ, and no revision wrote to it"
    return ""


def _difference(question: str, stored: object, told: object) -> str:
    if isinstance(stored, dict) and isinstance(told, dict):
        parts = [
            f"{key} {stored[key]!r} became {told.get(key)!r}"
            for key in stored
            if stored[key] != told.get(key)
        ]
        return f"{question}: {'; '.join(parts)}"[:500]
    return f"{question}: {stored!r} became {told!r}"[:500]
