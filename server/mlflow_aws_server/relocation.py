"""The operation `relocate`: every artifact URI of the database moves to where the artifacts are now."""

from __future__ import annotations

from contextlib import closing

import psycopg2

from mlflow_aws_server import artifact_uris
from mlflow_aws_server.artifact_uris import LongUriError
from mlflow_aws_server.database.admission import keep_migrations_away
from mlflow_aws_server.database.connect import connect
from mlflow_aws_server.errors import OperationError
from mlflow_aws_server.progress import phase
from mlflow_aws_server.settings import ImportSettings

_APPLICATION = "mlflow-relocate"
# Waiting for a table makes every later query of the server wait behind it: failing is better.
_LOCK_TIMEOUT = "60s"


def relocate(settings: ImportSettings, *, old: str, new: str) -> dict[str, object]:
    """Rewrite every URI below `old` to be below `new`, all or none; a second time changes nothing.

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
            details["rows"] = sum(counts.values())
    except (psycopg2.Error, LongUriError) as error:
        raise OperationError(
            f"no URI was changed: {' '.join(str(error).split())}. Correct the cause, then run it again."
        ) from error
    return {"old": old, "new": new, "rows": counts}
