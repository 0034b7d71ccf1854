"""Creating a run and changing its status, end time or name: one statement each."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from typing import Any

import asyncpg
from mlflow.exceptions import MlflowException
from mlflow.utils.name_utils import _generate_random_name
from mlflow.utils.uri import append_to_uri_path

from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.fastpath import reading, rendering, requests
from mlflow_aws_server.fastpath.errors import LeaveToStockError
from mlflow_aws_server.lineage import RUNNING, UNPROMOTED

_COLUMNS = ", ".join(reading.RUN_COLUMNS)
_STATUSES = frozenset(("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"))
_REMEMBERED_EXPERIMENTS = 4096
# What the columns of runs and tags hold.
_LONGEST_NAME = 250
_LONGEST_USER = 256

_EXPERIMENT = "SELECT artifact_location FROM experiments WHERE experiment_id = $1"

# The artifact location of an experiment never changes in MLflow; if it did all the same, nothing is written
# and it is read again. If our run id exists already, this statement is being repeated.
_CREATE = """
WITH experiment AS MATERIALIZED (
        SELECT experiment_id FROM experiments
        WHERE experiment_id = $2 AND lifecycle_stage = 'active' AND artifact_location = $3
    ),
    run AS (
        INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,
                          start_time, end_time, deleted_time, source_version, lifecycle_stage,
                          artifact_uri, experiment_id)
        SELECT $1::text, $4::text, 'UNKNOWN', '', '', $5::text, 'RUNNING', $6::int8, NULL, NULL, '', 'active',
               $7::text, experiment_id
        FROM experiment
        RETURNING run_uuid
    ),
    tagged AS (
        INSERT INTO tags (key, value, run_uuid)
        SELECT n.key, n.value, run.run_uuid
        FROM run, unnest($8::text[], $9::text[]) WITH ORDINALITY AS n (key, value, position)
        ORDER BY n.position
    )
SELECT 1 FROM run
"""

_UPDATE = f"""
WITH run AS (
        UPDATE runs
        SET status = coalesce($2::text, status), end_time = coalesce($3, end_time),
            name = coalesce($4::text, name)
        WHERE run_uuid = $1 AND {RUNNING} AND {UNPROMOTED}
        RETURNING {_COLUMNS}
    ),
    tagged AS (
        INSERT INTO tags (key, value, run_uuid)
        SELECT '{requests.RUN_NAME_TAG}', $4::text, run_uuid FROM run WHERE $4::text IS NOT NULL
        ON CONFLICT (key, run_uuid) DO UPDATE SET value = EXCLUDED.value
    )
SELECT {_COLUMNS},
       (SELECT value FROM tags WHERE run_uuid = $1 AND key = '{requests.RUN_NAME_TAG}') AS tagged_name
FROM run
"""  # noqa: S608 - only constants

_CREATE_FIELDS = frozenset(("experiment_id", "user_id", "run_name", "start_time", "tags"))
_UPDATE_FIELDS = frozenset(("run_id", "run_uuid", "status", "end_time", "run_name"))
_RUN = rendering.RunRenderer(2)


class ArtifactLocations:
    """Experiments' artifact locations, remembered; the database confirms them on every use."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, str] = OrderedDict()

    async def of(self, connection: AsyncConnection, experiment: int) -> str:
        """The artifact location of an experiment."""
        location = self._known.get(experiment)
        if location is None:
            location = await connection.fetchval(_EXPERIMENT, experiment)
            if location is None:
                raise LeaveToStockError("the experiment does not exist or has no artifact location")
            while len(self._known) >= _REMEMBERED_EXPERIMENTS:
                self._known.popitem(last=False)
            self._known[experiment] = location
        return location

    def forget(self, experiment: int) -> bool:
        """Forget an experiment; True if it was remembered."""
        return self._known.pop(experiment, None) is not None


class CreateRun:
    """`runs/create`."""

    def __init__(self) -> None:
        self._locations = ArtifactLocations()

    async def __call__(self, pool: ConnectionPool, raw: bytes) -> bytes:
        """Create the run and return it."""
        fields = requests.body(raw)
        requests.only(fields, _CREATE_FIELDS)
        experiment = requests.experiment_id(fields.get("experiment_id"))
        user = requests.text(fields.get("user_id", ""))
        start_time = requests.int64(fields.get("start_time", 0))
        tags = requests.new_run_tags(fields)
        given_name = requests.text(fields.get("run_name", ""))
        if len(user) > _LONGEST_USER or len(given_name) > _LONGEST_NAME:
            raise LeaveToStockError("the name or user does not fit its column")
        name = _name(given_name, tags)
        tags.setdefault(requests.RUN_NAME_TAG, name)
        run_id = uuid.uuid4().hex

        async def create(connection: AsyncConnection) -> str:
            for _ in range(2):
                location = await self._locations.of(connection, experiment)
                uri = _artifact_uri(location, run_id)
                try:
                    created = await connection.fetchval(
                        _CREATE,
                        run_id,
                        experiment,
                        location,
                        name,
                        user,
                        start_time,
                        uri,
                        list(tags),
                        list(tags.values()),
                    )
                except asyncpg.UniqueViolationError:
                    # Tags are unique here, so it is the run id, which is random: an earlier attempt
                    # was stored, but its result was lost.
                    return uri
                if created is not None:
                    return uri
                if not self._locations.forget(experiment):
                    break
            raise LeaveToStockError("the experiment does not exist or is not active")

        row = {
            "run_uuid": run_id,
            "name": name,
            "experiment_id": experiment,
            "user_id": user,
            "status": "RUNNING",
            "start_time": start_time,
            "end_time": None,
            "artifact_uri": await pool.run(create),
            "lifecycle_stage": "active",
        }
        return rendering.wrapped("run", _RUN.run(row, tags=list(tags.items())))


async def update_run(pool: ConnectionPool, raw: bytes) -> bytes:
    """`runs/update`."""
    fields = requests.body(raw)
    requests.only(fields, _UPDATE_FIELDS)
    run_id = requests.run_id_or_uuid(fields)
    status = fields.get("status")
    if "status" in fields and (type(status) is not str or status not in _STATUSES):
        raise LeaveToStockError("the status is not valid")
    end_time = requests.int64(fields["end_time"]) if "end_time" in fields else None
    # An empty name leaves the run's name as it is.
    name = requests.text(fields.get("run_name", "")) or None
    if name is not None and len(name) > _LONGEST_NAME:
        raise LeaveToStockError("the name does not fit its column")

    async def update(connection: AsyncConnection) -> Any:
        return await connection.fetchrow(_UPDATE, run_id, status, end_time, name)

    row = await pool.run(update)
    if row is None:
        raise LeaveToStockError("the run does not exist or is not open")
    shown_name = name or rendering.run_name(row["name"], [(requests.RUN_NAME_TAG, row["tagged_name"])])
    return rendering.wrapped("run_info", rendering.run_info(row, name=shown_name, indent=2))


def _name(name: str, tags: dict[str, str]) -> str:
    tagged = tags.get(requests.RUN_NAME_TAG)
    if requests.RUN_NAME_TAG in tags and not tagged:
        raise LeaveToStockError("a tag gives an empty name")
    if name and tagged and name != tagged:
        raise LeaveToStockError("the run has two names")
    if tagged and len(tagged) > _LONGEST_NAME:
        raise LeaveToStockError("the name does not fit its column")
    return name or tagged or _generate_random_name()


def _artifact_uri(location: str, run_id: str) -> str:
    try:
        return str(append_to_uri_path(location, run_id, "artifacts"))
    except MlflowException:
        raise LeaveToStockError("MLflow refuses the artifact location") from None
