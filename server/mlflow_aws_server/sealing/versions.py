"""Model versions in MLflow's tables: which are to be sealed, where their files are, and their state."""

from __future__ import annotations

import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlflow.prompt.constants import _PROMPT_SOURCE_PLACEHOLDERS

from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.sealing.manifest import FORMER_SEAL_TAG, SEAL_TAG, Seal

PROMPT_SOURCES: frozenset[str] = frozenset(_PROMPT_SOURCE_PLACEHOLDERS)
"""What prompts have for a source. Their tag would be no proof: any client can set it on a model's version."""

PENDING = "PENDING_REGISTRATION"
READY = "READY"
FAILED = "FAILED_REGISTRATION"
BEGUN = "The server is sealing this version: it copies its files to where nobody can change them."

# Of MLflow's column.
_LONGEST_MESSAGE = 500
# A version of a version of …; the server need not follow for ever.
_MOST_STEPS = 20

_THIS = """workspace = 'default' AND name = $1 AND version = $2 AND creation_time = $3
       AND current_stage <> 'Deleted_Internal'"""
_LIVE = """(v.current_stage IN ('Staging', 'Production') OR EXISTS (
        SELECT FROM registered_model_aliases a
         WHERE a.workspace = v.workspace AND a.name = v.name AND a.version = v.version))"""
_SEAL, _FORMER_SEAL = (
    f"""(SELECT value FROM model_version_tags t
         WHERE t.workspace = v.workspace AND t.name = v.name AND t.version = v.version
           AND t.key = '{tag}')"""  # noqa: S608 - a constant
    for tag in (SEAL_TAG, FORMER_SEAL_TAG)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """A version that was not deleted."""

    name: str
    version: int
    creation_time: int
    source: str
    location: str
    """What `get-download-uri` answers."""
    run_id: str | None
    status: str
    message: str
    live: bool
    """Whether a stage Staging or Production, or an alias, names it."""
    seal: Seal | None
    former_seal: Seal | None
    """Of a relocated version: where its sealed files are now, and their manifest."""

    @property
    def prompt(self) -> bool:
        """Whether it is a prompt, which has no files."""
        return self.source in PROMPT_SOURCES

    @property
    def keeps_ready(self) -> bool:
        """Whether somebody may be loading it unsealed: it stays READY until it is sealed, and if it fails."""
        return (self.live or self.former_seal is not None) and self.status == READY

    def to_seal(self, *, wanted: bool) -> bool:
        """Whether it has to be sealed; one that is `wanted` for a stage or an alias does in any state."""
        due = wanted or self.live or self.former_seal is not None or self.status == PENDING
        return self.seal is None and not self.prompt and due


async def read(connection: AsyncConnection, name: str, version: int) -> VersionRow | None:
    """The version, or None if there is none."""
    row = await connection.fetchrow(
        f"""SELECT v.creation_time, coalesce(v.source, '') AS source, v.run_id, v.status,
                   coalesce(nullif(v.storage_location, ''), v.source, '') AS location,
                   coalesce(v.status_message, '') AS message, {_LIVE} AS live, {_SEAL} AS seal,
                   {_FORMER_SEAL} AS former_seal
              FROM model_versions v
             WHERE v.workspace = 'default' AND v.name = $1 AND v.version = $2
               AND v.current_stage <> 'Deleted_Internal'""",  # noqa: S608 - constants
        name,
        version,
    )
    if row is None:
        return None
    fields = dict(row)
    for tag in ("seal", "former_seal"):
        fields[tag] = Seal.read(fields[tag]) if fields[tag] else None
    return VersionRow(name=name, version=version, **fields)


async def to_seal(connection: AsyncConnection) -> list[tuple[str, int]]:
    """The versions that are to be sealed: live and relocated ones without a seal, then those that wait."""
    rows = await connection.fetch(
        f"""SELECT v.name, v.version FROM model_versions v
             WHERE v.workspace = 'default' AND v.current_stage <> 'Deleted_Internal'
               AND NOT coalesce(v.source, '') = ANY ($1) AND {_SEAL} IS NULL
               AND (v.status = '{PENDING}' OR {_LIVE} OR {_FORMER_SEAL} IS NOT NULL)
             ORDER BY v.status = '{PENDING}', v.creation_time""",  # noqa: S608 - constants
        sorted(PROMPT_SOURCES),
    )
    return [(row["name"], row["version"]) for row in rows]


async def failed(connection: AsyncConnection) -> int:
    """How many versions cannot be sealed."""
    number: int = await connection.fetchval(
        f"""SELECT count(*) FROM model_versions v WHERE v.workspace = 'default' AND v.status = '{FAILED}'
               AND v.current_stage <> 'Deleted_Internal'"""  # noqa: S608 - constants
    )
    return number


async def places_of_files(connection: AsyncConnection, version: VersionRow) -> list[str]:
    """Where the version's files may be, the likeliest place first: URIs of what stores artifacts."""
    uri = version.location
    for _ in range(_MOST_STEPS):
        parts = urlsplit(uri)
        path = parts.path.strip("/")
        if parts.scheme == "runs":
            return await _of_run(connection, *path.partition("/")[::2])
        if parts.scheme != "models":
            return [uri]
        name, _, number = path.partition("/")
        found = (
            await _of_version(connection, name, int(number))
            if number.isascii() and number.isdigit()
            else await connection.fetchval(
                "SELECT artifact_location FROM logged_models WHERE model_id = $1", name
            )
        )
        if found is None:
            return []
        uri = found
    return []


async def _of_run(connection: AsyncConnection, run: str, path: str) -> list[str]:
    """The run's artifacts; since MLflow 3, what a run logged as a model is a logged model's."""
    location = await connection.fetchval("SELECT artifact_uri FROM runs WHERE run_uuid = $1", run)
    logged = await connection.fetch(
        """SELECT artifact_location FROM logged_models WHERE source_run_id = $1 AND name = $2
            ORDER BY creation_timestamp_ms DESC""",
        run,
        path,
    )
    of_run = [] if location is None else [f"{location.rstrip('/')}/{path}"]
    return of_run + [row["artifact_location"] for row in logged]


async def _of_version(connection: AsyncConnection, name: str, version: int) -> str | None:
    found: str | None = await connection.fetchval(
        """SELECT coalesce(nullif(storage_location, ''), source) FROM model_versions
            WHERE workspace = 'default' AND name = $1 AND version = $2
              AND current_stage <> 'Deleted_Internal'""",
        name,
        version,
    )
    return found


async def note(connection: AsyncConnection, version: VersionRow, *, status: str, message: str) -> None:
    """Set the state of a version that has no seal."""
    await connection.execute(
        f"""UPDATE model_versions v SET status = $4, status_message = $5, last_updated_time = $6
             WHERE {_THIS} AND {_SEAL} IS NULL""",  # noqa: S608 - constants
        version.name,
        version.version,
        version.creation_time,
        status,
        message[:_LONGEST_MESSAGE],
        _now(),
    )


async def complete(connection: AsyncConnection, version: VersionRow, seal: Seal) -> bool:
    """Serve the version from its sealed copy from now on; False if it is gone, or was sealed already.

    One statement: nobody sees a sealed location without its seal, or the other way round.
    """
    done = await connection.fetchval(
        f"""WITH this AS (
                UPDATE model_versions v SET storage_location = $4, status = '{READY}', status_message = NULL,
                       last_updated_time = $5
                 WHERE {_THIS} AND {_SEAL} IS NULL
                RETURNING workspace, name, version)
            INSERT INTO model_version_tags (workspace, name, version, key, value)
            SELECT workspace, name, version, '{SEAL_TAG}', $6 FROM this
            RETURNING TRUE""",  # noqa: S608 - constants
        version.name,
        version.version,
        version.creation_time,
        seal.location,
        _now(),
        seal.write(),
    )
    return bool(done)


def _now() -> int:
    return time.time_ns() // 1_000_000
