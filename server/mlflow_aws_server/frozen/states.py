"""What is known of runs and logged models, and whether a change of them is refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.errors import RefusedError
from mlflow_aws_server.frozen.changes import NOTE, Change
from mlflow_aws_server.lineage import EVER_PROMOTED, MODEL_OF_SOURCE, OPEN_STATUSES

# Of the versions that rest on a thing, the first that freezes it; if none does, any.
_STATES = f"""
WITH thing AS (
        SELECT 'run' AS kind, r.run_uuid AS id, r.run_uuid AS run,
               coalesce(r.status, 'SCHEDULED') NOT IN {OPEN_STATUSES} AS ended,
               (SELECT value FROM tags
                WHERE run_uuid = r.run_uuid AND key = 'mlflow_aws.principal') AS author
        FROM runs r WHERE r.run_uuid = ANY($1::text[])
    UNION ALL
        SELECT 'logged model', m.model_id, nullif(m.source_run_id, ''),
               r.run_uuid IS NULL OR coalesce(r.status, 'SCHEDULED') NOT IN {OPEN_STATUSES}, NULL
        FROM logged_models m LEFT JOIN runs r ON r.run_uuid = m.source_run_id
        WHERE m.model_id = ANY($2::text[])
    )
SELECT thing.kind, thing.id, thing.ended, thing.author, version.name, version.version, version.promoted
FROM thing LEFT JOIN LATERAL (
        SELECT v.name, v.version, {EVER_PROMOTED} AS promoted FROM model_versions v
        WHERE v.run_id = thing.run OR (thing.kind = 'logged model' AND {MODEL_OF_SOURCE} = thing.id)
        ORDER BY thing.ended OR {EVER_PROMOTED} DESC, v.creation_time, v.version LIMIT 1
    ) version ON true
ORDER BY thing.kind DESC, thing.id
"""  # noqa: S608 - only constants


class FrozenError(RefusedError):
    """The caller would change what must stay as it is."""

    status = 403
    code = "PERMISSION_DENIED"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageState:
    """One run or logged model. `model` and `version` name the version that rests on it, or are None."""

    kind: str
    id: str
    ended: bool
    author: str | None
    model: str | None
    version: int | None
    promoted: bool | None

    @property
    def frozen(self) -> bool:
        """Whether it must stay as it is."""
        return self.version is not None and bool(self.ended or self.promoted)


async def states(
    connection: AsyncConnection, runs: Iterable[str], models: Iterable[str]
) -> tuple[LineageState, ...]:
    """The states of these runs and logged models, without those that do not exist."""
    rows = await connection.fetch(_STATES, _storable(runs), _storable(models))
    return tuple(
        LineageState(
            kind=row["kind"],
            id=row["id"],
            ended=row["ended"],
            author=row["author"],
            model=row["name"],
            version=row["version"],
            promoted=row["promoted"],
        )
        for row in rows
    )


def refuse_change(
    change: Change, state: LineageState, *, caller: str, by_author: bool, approvers: Sequence[str]
) -> None:
    """Let `caller`, who has no right to approve, make a change of this run or logged model, or not.

    `by_author`: a run that has ended is changed by its author only.

    Raises:
        FrozenError: it must stay as it is.
    """
    if change.describes:
        return
    may = " or ".join(approvers)
    is_author = state.author == caller
    if state.frozen:
        # A job that is still running when its model is promoted ends like any other.
        if change.ends and not state.ended and is_author:
            return
        why = "rests on it" if state.ended else "rests on it, and was promoted"
        version = f"version {state.version} of the model {state.model!r}"
        raise FrozenError(
            f"The {state.kind} {state.id} is frozen: {version} {why}. It can be changed or deleted only with "
            f"the role {may}. Its description (tag {NOTE!r}) is free."
        )
    if state.kind == "run" and state.ended and by_author and not is_author:
        whose = f"{state.author} created it" if state.author else "it has no recorded author"
        raise FrozenError(
            f"The run {state.id} has ended, and {whose}: it can be changed or deleted only by its author, or "
            f"with the role {may}. Its description (tag {NOTE!r}) is free."
        )


def _storable(ids: Iterable[str]) -> list[str]:
    # PostgreSQL holds no NUL and no lone surrogate, so nothing has such an id.
    return [each for each in ids if each.isprintable()]
