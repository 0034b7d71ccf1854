"""Which database schemas the fast path was tested with."""

from __future__ import annotations

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
    heads = sorted(row[0] for row in await connection.fetch("SELECT version_num FROM alembic_version"))
    if len(heads) != 1 or heads[0] not in TESTED_HEADS:
        found = ", ".join(heads) or "without a version"
        return f"schema {found}, tested only with {', '.join(sorted(TESTED_HEADS))}"
    return None
