"""Places as MLflow is about to store them, whatever request they came with."""

from __future__ import annotations

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from mlflow.store.tracking.dbmodels.models import SqlLoggedModel, SqlRun, SqlTraceTag
from mlflow.utils.mlflow_tags import MLFLOW_ARTIFACT_LOCATION, MLFLOW_TRACE_ARCHIVE_LOCATION
from sqlalchemy import event, select

from mlflow_aws_server.provenance.places import ArtifactPlaces
from mlflow_aws_server.sealing.versions import PROMPT_SOURCES

_TRACE_TAGS = frozenset((MLFLOW_ARTIFACT_LOCATION, MLFLOW_TRACE_ARCHIVE_LOCATION))


class StoredPlaces:
    """Keeps MLflow, in this process, from storing a place outside of the artifact root.

    Two come with no request in which they could be judged: where a version is that refers to another one, to
    a logged model or to a run, and where a trace's data are, which OpenTelemetry's export can say too.
    """

    def __init__(self, places: ArtifactPlaces) -> None:
        self._places = places
        self._watched = (
            (SqlModelVersion, "before_insert", self._check_version),
            (SqlTraceTag, "before_insert", self._check_trace_tag),
            (SqlTraceTag, "before_update", self._check_trace_tag),
        )

    def watch(self) -> None:
        """Begin."""
        for table, change, check in self._watched:
            event.listen(table, change, check)

    def ignore(self) -> None:
        """End it."""
        for table, change, check in self._watched:
            event.remove(table, change, check)

    def _check_version(self, _mapper: Any, connection: Any, row: Any) -> None:
        location = row.storage_location
        if row.source in PROMPT_SOURCES:
            return
        if location.startswith("runs:/"):
            location = connection.scalar(select(SqlRun.artifact_uri).where(SqlRun.run_uuid == row.run_id))
        if not self._places.holds_model(location or ""):
            raise self._refusal("source", f"{row.source}, which is at {location}", "Log the model anew.")
        if row.run_id and not _is_of_run(connection, row.run_id, location):
            raise MlflowException(
                f"`source` is {row.source!r}, which the run {row.run_id!r} did not log: its figures would be "
                "those of another model. Register what that run logged, or leave `run_id` out.",
                error_code=INVALID_PARAMETER_VALUE,
            )

    def _check_trace_tag(self, _mapper: Any, _connection: Any, row: Any) -> None:
        if row.key in _TRACE_TAGS and not self._places.holds(row.value or ""):
            raise self._refusal(row.key, row.value, "Leave it out: the server chooses one.")

    def _refusal(self, what: str, given: str, remedy: str) -> MlflowException:
        message = self._places.refusal(what, given, remedy).message
        return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


def _is_of_run(connection: Any, run_id: str, location: str) -> bool:
    """Whether a run logged what is at `location`: as an artifact, a logged model, or for another version."""
    of_run = (
        select(SqlRun.artifact_uri).where(SqlRun.run_uuid == run_id),
        select(SqlLoggedModel.artifact_location).where(SqlLoggedModel.source_run_id == run_id),
        select(SqlModelVersion.storage_location).where(SqlModelVersion.run_id == run_id),
    )
    places = (place for each in of_run for place in connection.scalars(each) if place)
    return any(f"{location}/".startswith(f"{place.rstrip('/')}/") for place in places)
