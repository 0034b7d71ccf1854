"""The operation `import`: everything of one archive becomes rows here, or nothing does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2

from mlflow_aws_server import artifact_uris, schema
from mlflow_aws_server.database.admission import keep_migrations_away
from mlflow_aws_server.database.connect import connect, store_uri
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.imports import copying, mapping, scratch
from mlflow_aws_server.imports.archive import PLACE, Archive
from mlflow_aws_server.progress import phase
from mlflow_aws_server.s3 import s3_client
from mlflow_aws_server.sealing.places import Prefix
from mlflow_aws_server.settings import ImportSettings

_APPLICATION = "mlflow-import"
# "imports" in ASCII.
_LOCK = 0x696D706F727473
# Waiting for a table makes every later query of the server wait behind it: failing is better.
_LOCK_TIMEOUT = "60s"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def run(settings: ImportSettings, archive: str, *, sha256: str, dry_run: bool) -> dict[str, object]:
    """Import the archive of this name, whose manifest has this digest.

    With `dry_run`, do all of it and commit nothing.

    Raises:
        OperationError: it failed; nothing was changed.
    """
    if _ID.fullmatch(archive) is None:
        raise OperationError(f"{archive!r} is no name of an archive: lower case letters, digits and `-`.")
    root = Prefix.read(settings.artifact_root)
    assert root is not None  # noqa: S101 - the settings were checked
    where = (s3_client(settings.database.region), root.bucket, f"{root.inside}{PLACE}/{archive}/")
    source = Archive.read(*where, sha256=sha256)
    try:
        with closing(connect(settings.database, settings.migrator, application=_APPLICATION)) as connection:
            connection.autocommit = True
            keep_migrations_away(connection)
            with connection.cursor() as cursor, _alone(cursor):
                return _import(settings, cursor, where, source, archive=archive, dry_run=dry_run)
    except psycopg2.Error as error:
        raise OperationError(
            f"the database refused: {' '.join(str(error).split())}. Nothing was imported; correct the cause, "
            "or, if somebody made something of the same name meanwhile, just import again."
        ) from error


def _import(
    settings: ImportSettings,
    cursor: Any,
    where: tuple[Any, str, str],
    source: Archive,
    *,
    archive: str,
    dry_run: bool,
) -> dict[str, object]:
    from mlflow_aws_server.events import outbox

    _require_head(cursor)
    uri = store_uri(
        settings.database,
        settings.migrator,
        application_name=_APPLICATION,
        options=f"-c search_path={scratch.SCHEMA} -c lock_timeout={_LOCK_TIMEOUT}",
    )
    with scratch.scratch_schema(cursor):
        with phase("schema", event="import") as details:
            keys = scratch.create_tables(cursor, uri, source.revision)
            details["revision"] = source.revision
        with phase("load", event="import") as details:
            read = scratch.load(cursor, *where, source)
            details["rows"] = sum(read.values())
        with phase("upgrade", event="import") as details:
            orphans = scratch.remove_orphans(cursor, keys)
            if source.revision != schema.installed().head:
                scratch.restore(cursor, keys)
                scratch.upgrade(uri)
                scratch.take_off_foreign_keys(cursor)
                scratch.widen_ids(cursor)
            migrated = copying.migrated(cursor, read, orphans)
            scratch.drop_unique_constraints(cursor)
            details["without_parents"] = sum(orphans.values())
        with phase("places", event="import") as details:
            _require_one_workspace(cursor)
            claims = copying.rename_claims(cursor)
            moved: dict[str, int] = {}
            # The longest first: one root may be inside another.
            for old, new in sorted(source.roots.items(), key=lambda root: -len(root[0])):
                for column, rows in artifact_uris.rewrite(cursor, scratch.SCHEMA, old, new).items():
                    moved[column] = moved.get(column, 0) + rows
            details["moved"] = sum(moved.values())
        document: dict[str, object] = {"source": source.source, "dry_run": dry_run}
        with phase("copy", event="import") as details:
            cursor.execute("BEGIN")
            try:
                cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                decided = mapping.decide(cursor, source)
                mapping.apply(cursor, decided)
                if not dry_run:
                    copying.advance_sequence(cursor, decided)
                copied = copying.copy(cursor, decided, root=settings.artifact_root)
                mapping.remember(cursor, source, decided)
                imported = {"archive": archive, "source": source.source, "rows": sum(copied.values())}
                outbox.add(cursor, "Import Finished", imported)
                counts = copying.count(cursor)
                details["rows"] = sum(copied.values())
                document |= {
                    "rows": counts,
                    "copied": {table: rows for table, rows in copied.items() if rows},
                    "mapped": decided.told,
                    "claims": claims,
                    "moved": {column: rows for column, rows in moved.items() if rows},
                    "elsewhere": copying.elsewhere(cursor, settings.artifact_root),
                    "without_parents": orphans,
                    "migrated": migrated,
                    "unused_default_experiment": int(decided.unused),
                    "left_out": copying.left_out(read, source),
                }
                cursor.execute("ROLLBACK" if dry_run else "COMMIT")
            except BaseException:
                if not cursor.connection.closed:
                    cursor.execute("ROLLBACK")
                raise
    return document


@contextmanager
def _alone(cursor: Any) -> Iterator[None]:
    cursor.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
    if not cursor.fetchone()[0]:
        raise OperationError("another import is running. Run it again when that has ended.")
    # The session ends with the import, and the lock with it.
    yield


def _require_head(cursor: Any) -> None:
    cursor.execute("SELECT array_agg(version_num) FROM public.alembic_version")
    (found,) = cursor.fetchone()
    head = schema.installed().head
    if found != [head]:
        raise OperationError(
            f"the deployment's schema has the revision {found}, and this image needs {head}. Deploy first."
        )


def _require_one_workspace(cursor: Any) -> None:
    cursor.execute(
        "SELECT DISTINCT workspace FROM mlflow_import.experiments WHERE workspace <> 'default' UNION"
        " SELECT DISTINCT workspace FROM mlflow_import.registered_models WHERE workspace <> 'default'"
    )
    if others := sorted(row[0] for row in cursor.fetchall()):
        raise OperationError(
            f"the source has the workspaces {', '.join(others)}, and this deployment has one, `default`. "
            "Move what is in them to `default` in the source first."
        )
