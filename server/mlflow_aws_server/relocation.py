"""The operation `relocate`: every artifact URI of the database moves to where the artifacts are now."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2

from mlflow_aws_server import artifact_uris
from mlflow_aws_server.artifact_uris import LongUriError
from mlflow_aws_server.database.admission import keep_migrations_away
from mlflow_aws_server.database.connect import connect
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.progress import phase
from mlflow_aws_server.sealing.manifest import FORMER_SEAL_TAG, SEAL_TAG, Seal
from mlflow_aws_server.settings import ImportSettings

_APPLICATION = "mlflow-relocate"
# Waiting for a table makes every later query of the server wait behind it: failing is better.
_LOCK_TIMEOUT = "60s"
_REMOVE = "DELETE FROM model_version_tags WHERE (workspace, name, version, key) = (%s, %s, %s, %s)"
_FORMER = (
    "INSERT INTO model_version_tags (workspace, name, version, key, value) VALUES (%s, %s, %s, %s, %s)"
    " ON CONFLICT (workspace, key, name, version) DO UPDATE SET value = excluded.value"
)


def relocate(settings: ImportSettings, *, old: str, new: str) -> dict[str, object]:
    """Rewrite every URI below `old` to be below `new`, all or none; a second time changes nothing.

    What was sealed below `old` is not sealed below `new`, where others may write: its seal becomes a former
    one, and the servers seal it again if its files are still those.

    Raises:
        OperationError: `new` is not below the artifact root, or the database refused; nothing was changed.
    """
    root, target = f"{settings.artifact_root.rstrip('/')}/", f"{new.rstrip('/')}/"
    if not target.startswith(root):
        raise OperationError(
            f"{new} is not below this deployment's artifact root, {root}. Name a place there."
        )
    if root.startswith(f"{old.rstrip('/')}/"):
        raise OperationError(
            f"{old} holds this deployment's own artifacts. Name the root that they came from."
        )
    try:
        with (
            closing(connect(settings.database, settings.migrator, application=_APPLICATION)) as connection,
            phase("uris", event="relocate") as details,
        ):
            keep_migrations_away(connection)
            with connection, connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                counts = artifact_uris.rewrite(cursor, "public", old, new)
                counts[f"model_version_tags.{SEAL_TAG}"] = _break_seals(cursor, old, new)
            details["rows"] = sum(counts.values())
    except (psycopg2.Error, LongUriError) as error:
        raise OperationError(
            f"no URI was changed: {' '.join(str(error).split())}. Correct the cause, then run it again."
        ) from error
    return {"old": old, "new": new, "rows": counts}


def _break_seals(cursor: Any, old: str, new: str) -> int:
    cursor.execute(
        "SELECT workspace, name, version, key, value FROM model_version_tags WHERE key IN (%s, %s)"
        # A version that was relocated twice keeps its last seal.
        " ORDER BY key FOR UPDATE",
        (FORMER_SEAL_TAG, SEAL_TAG),
    )
    broken = 0
    for *version, key, value in cursor.fetchall():
        seal = Seal.read(value).relocated(old, new)
        if seal is None:
            continue
        cursor.execute(_REMOVE, (*version, key))
        cursor.execute(_FORMER, (*version, FORMER_SEAL_TAG, seal.write()))
        broken += 1
    return broken
