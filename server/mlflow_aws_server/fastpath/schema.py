"""Which database schemas the fast path was tested with.

It serves on a newer one too that an older MLflow can use: what it was tested with is all there.
"""

from __future__ import annotations

from mlflow_aws_server.database.admission import HEAD, heads
from mlflow_aws_server.database.connect import AsyncConnection

# MLflow's own migration heads (alembic revisions), with the release that has them.
TESTED_HEADS = frozenset(
    ("dc11669786a5",)  # MLflow 3.17.2
)


async def schema_obstacle(connection: AsyncConnection) -> str | None:
    """Why the fast path must not use this database, or None.

    Raises:
        asyncpg.PostgresError: the version table cannot be read.
    """
    found = heads(await connection.fetch(HEAD))
    if not TESTED_HEADS & set(found):
        seen = found[0] if found else "without a version"
        return f"schema {seen}, tested only with {', '.join(sorted(TESTED_HEADS))}"
    return None
