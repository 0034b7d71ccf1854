"""Where the file is that a request asks for, by what MLflow's tables say."""

from __future__ import annotations

from mlflow_aws_server.artifacts.errors import ArtifactError, invalid, missing
from mlflow_aws_server.artifacts.wanted import Owner, Wanted
from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.limits import TRACE_BYTES
from mlflow_aws_server.provenance import ArtifactPlaces
from mlflow_aws_server.sealing import versions
from mlflow_aws_server.sealing.places import Prefix

_RUN = "SELECT artifact_uri FROM runs WHERE run_uuid = $1"
_MODEL = """SELECT artifact_location FROM logged_models
             WHERE model_id = $1 AND lifecycle_stage IS DISTINCT FROM 'deleted'"""
_TRACE = """SELECT max(t.value) FILTER (WHERE t.key = 'mlflow.artifactLocation'),
                   max(t.value) FILTER (WHERE t.key = 'mlflow.trace.spansLocation'),
                   (SELECT sum(octet_length(s.content)) FROM spans s WHERE s.trace_id = i.request_id)
              FROM trace_info i LEFT JOIN trace_tags t ON t.request_id = i.request_id
             WHERE i.request_id = $1 GROUP BY i.request_id"""
_IN_DATABASE = frozenset(("TRACKING_STORE", "ARCHIVE_REPO"))
_LARGEST_VERSION = 2**31 - 1


class Locations:
    """Finds the places, all of them under the artifact root."""

    def __init__(self, questions: ConnectionPool, places: ArtifactPlaces) -> None:
        self._questions = questions
        self._places = places

    async def of(self, wanted: Wanted) -> list[Prefix]:
        """The directories in which the file may be, the likeliest first; none if MLflow keeps it otherwise.

        Raises:
            ArtifactError: its owner does not exist, or its files are elsewhere.
        """
        if "\0" in wanted.name:
            raise invalid(f"No {wanted.owner.value} has such a name.")

        async def ask(connection: AsyncConnection) -> list[str]:
            return await _uris(connection, wanted)

        uris = await self._questions.run(ask)
        inside = [uri for uri in uris if self._places.holds_model(uri)]
        if uris and not inside:
            raise ArtifactError(
                403,
                "PERMISSION_DENIED",
                f"The files of this {wanted.owner.value} are outside of the artifact root, where the server "
                "reads nothing. Download them from S3 with credentials of your own.",
            )
        return [prefix for uri in inside if (prefix := Prefix.read(uri)) is not None]


async def _uris(connection: AsyncConnection, wanted: Wanted) -> list[str]:
    if wanted.owner is Owner.VERSION:
        return await _of_version(connection, wanted.name, wanted.version)
    if wanted.owner is Owner.TRACE:
        return await _of_trace(connection, wanted)
    uri = await connection.fetchval(_RUN if wanted.owner is Owner.RUN else _MODEL, wanted.name)
    if uri is None:
        what = "Run with id={}" if wanted.owner is Owner.RUN else "Logged model with ID '{}'"
        raise missing(f"{what.format(wanted.name)} not found")
    return [uri]


async def _of_version(connection: AsyncConnection, name: str, version: str) -> list[str]:
    if not (version.isascii() and version.isdigit()):
        raise invalid(f"Parameter 'version' must be an integer, got '{version}'.")
    found = await versions.read(connection, name, int(version)) if int(version) <= _LARGEST_VERSION else None
    if found is None:
        raise missing(f"Model Version (name={name}, version={version}) not found")
    uris = await versions.places_of_files(connection, found)
    if not uris:
        raise missing(f"Model Version (name={name}, version={version}) has no files")
    return uris


async def _of_trace(connection: AsyncConnection, wanted: Wanted) -> list[str]:
    row = await connection.fetchrow(_TRACE, wanted.name)
    if row is None:
        raise missing(f"Trace with ID '{wanted.name}' not found.")
    location, spans, size = row
    if wanted.spans and spans in _IN_DATABASE:
        TRACE_BYTES.check(size or 0)
        return []
    if location is None:
        raise missing(f"Trace with ID '{wanted.name}' has no files.")
    return [location]
