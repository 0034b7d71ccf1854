"""What the database says of a model version at this moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.provenance.chain import WORKSPACE
from mlflow_aws_server.sealing.manifest import SEAL_TAG, Seal

_VERSION = """
SELECT v.run_id, v.current_stage,
    (SELECT t.value FROM model_version_tags t
     WHERE t.workspace = v.workspace AND t.key = $4 AND t.name = v.name AND t.version = v.version),
    ARRAY(SELECT a.alias FROM registered_model_aliases a
          WHERE a.workspace = v.workspace AND a.name = v.name AND a.version = v.version ORDER BY a.alias)
FROM model_versions v
WHERE v.workspace = $1 AND v.name = $2 AND v.version = $3 AND v.current_stage <> 'Deleted_Internal'
"""
_METRICS = "SELECT key, value, is_nan FROM latest_metrics WHERE run_uuid = $1 AND key = ANY($2)"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a version stands."""

    run_id: str | None
    stage: str
    seal: str | None
    """The SHA-256 of the manifest with which it was sealed; None: it is not sealed."""
    aliases: tuple[str, ...]


async def standing(questions: ConnectionPool, model: str, version: int) -> Standing | None:
    """Where a version stands; None if it does not exist."""

    async def ask(connection: AsyncConnection) -> Standing | None:
        row = await connection.fetchrow(_VERSION, WORKSPACE, model, version, SEAL_TAG)
        if row is None:
            return None
        run_id, stage, seal, aliases = row
        return Standing(run_id, stage, Seal.read(seal).sha256 if seal else None, tuple(aliases))

    return await questions.run(ask)


async def latest_metrics(
    questions: ConnectionPool, run_id: str | None, names: Sequence[str]
) -> dict[str, float]:
    """The last values of a run's metrics, of those among `names` that it has."""
    if run_id is None or not names:
        return {}

    async def ask(connection: AsyncConnection) -> dict[str, float]:
        rows = await connection.fetch(_METRICS, run_id, list(names))
        return {key: float("nan") if is_nan else value for key, value, is_nan in rows}

    return await questions.run(ask)
