"""What a process says of its state, for the metrics."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_aws_server.database.admission import STATE
from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.fast_path_state import TURNED_OFF, FastPathState
from mlflow_aws_server.identity import Gate
from mlflow_aws_server.metrics import Probe, State

# PostgreSQL shows when a transaction began only to those who may act as its role.
_OLDEST = """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
      FROM pg_stat_activity
     WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def of_process(gate: Gate, fast_path: FastPathState) -> State:
    """What the process knows without asking anybody."""

    def state() -> Mapping[str, object]:
        said: dict[str, object] = {
            "fast_path": fast_path.reason or "serving",
            "left_to_stock": dict(fast_path.left),
            "schema": STATE.state,
            "schema_head": STATE.head,
        }
        if fast_path.reason != TURNED_OFF:
            said["FastPathServing"] = int(fast_path.serving)
        return {
            **said,
            "KeysAge": round(gate.keys_age()),
            "SchemaCurrent": int(STATE.state == "current"),
        }

    return state


def of_database(questions: ConnectionPool) -> Probe:
    """How old the oldest transaction is."""

    async def oldest(connection: AsyncConnection) -> float:
        seconds: float = await connection.fetchval(_OLDEST)
        return round(seconds, 1)

    async def probe() -> Mapping[str, object]:
        return {"OldestTransaction": await questions.run(oldest)}

    return probe
