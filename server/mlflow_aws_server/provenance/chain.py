"""A model's history as a chain: each entry has a number and the digest of the one before it.

An entry is written in the transaction in which MLflow's store makes the change, so there is never one without
the other.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from mlflow.store.model_registry.dbmodels.models import (
    SqlModelVersion,
    SqlModelVersionTag,
    SqlRegisteredModelAlias,
    SqlRegisteredModelTag,
)
from sqlalchemy import Connection, event, insert, inspect, text
from sqlalchemy.orm import Session

from mlflow_aws_server.events.outbox import OUTBOX
from mlflow_aws_server.provenance.tags import HISTORY

WORKSPACE = "default"
"""MLflow's workspace; this server has no other."""

# A registered model's tag holds 5,000 characters; the caller's name can take 1,600 of them.
_MOST_RANGES = 25
_TIME = "%Y%m%dT%H%M%S.%fZ"
_KEY = re.compile(re.escape(HISTORY) + r"(\d{8}T\d{6}\.\d{6}Z)-[0-9a-f]{4}")
_EVENTS = {
    "stage": "Model Stage Changed",
    "alias": "Model Alias Set",
    "alias-removed": "Model Alias Removed",
    "version-deleted": "Model Version Deleted",
}
_TICK = datetime.timedelta(microseconds=1)

# Entries of one model follow each other, even if a lost connection has ended an advisory lock too early.
_LOCK = text(
    "SELECT 1 FROM registered_models WHERE workspace = :workspace AND name = :name FOR NO KEY UPDATE"
)
# By the number, not by the last entry: while tasks are replaced, one from before the chain may write as well.
_LAST = text(
    """
    WITH entries AS (
        SELECT key, value FROM model_version_tags
        WHERE workspace = :workspace AND name = :name AND starts_with(key, :prefix)
        UNION ALL
        SELECT key, value FROM registered_model_tags
        WHERE workspace = :workspace AND name = :name AND starts_with(key, :prefix)
    )
    SELECT
        key, value,
        (SELECT max(substring(left(value, 30) FROM '^[{]"number":([0-9]{1,9}),')::int) FROM entries)
    FROM entries ORDER BY key COLLATE "C" DESC LIMIT 1
    """
)
_OF_VERSION = text(
    """
    SELECT value FROM model_version_tags
    WHERE workspace = :workspace AND name = :name AND version = :version AND starts_with(key, :prefix)
    """
)


@dataclass(slots=True, kw_only=True)
class PendingEntry:
    """What is known of an entry before the change: all but its time and its place in the chain."""

    model: str
    version: int
    facts: Mapping[str, Any]
    deletes: bool = False
    """The version and its tags go, so the entry becomes a tag of the registered model."""
    now: Callable[[], datetime.datetime] = field(default=lambda: datetime.datetime.now(datetime.UTC))
    written: bool = False


_pending: ContextVar[PendingEntry | None] = ContextVar("mlflow_aws.pending_entry", default=None)


@contextlib.contextmanager
def written_with_the_change(entry: PendingEntry) -> Iterator[None]:
    """Have `entry` written by the transaction that changes a version or an alias within this block.

    It may run in a thread that is started here. What fails to be written fails the change.
    """
    token = _pending.set(entry)
    try:
        yield
    finally:
        _pending.reset(token)


@event.listens_for(Session, "after_flush")
def _write_pending(session: Session, _: object) -> None:
    entry = _pending.get()
    if entry is None or entry.written:
        return
    changed = (*session.new, *session.dirty, *session.deleted)
    if any(isinstance(each, (SqlModelVersion, SqlRegisteredModelAlias)) for each in changed):
        document = _write(session.connection(), entry)
        entry.written = True
        kind, detail = _EVENTS[entry.facts["action"]], _event(entry, document, changed)
        OUTBOX.add(session.connection(), kind, about=entry.model, detail=detail)


def _event(entry: PendingEntry, document: Mapping[str, Any], changed: Iterable[Any]) -> dict[str, Any]:
    """What subscribers are told of an entry: enough to act on, and where the rest is."""
    archived = [
        str(each.version)
        for each in changed
        if isinstance(each, SqlModelVersion)
        and each.version != entry.version
        and inspect(each).attrs.current_stage.history.has_changes()
    ]
    found = {name: document.get(name) for name in ("stage", "alias", "seal")}
    return {
        "principal": document.get("principal"),
        "model": entry.model,
        "version": document["version"],
        **{name: value for name, value in found.items() if value is not None},
        "previous": document.get("previous"),
        **({"archived": archived} if archived else {}),
        "history": document["number"],
        "policy": (document.get("decision") or {}).get("policy"),
    }


def _write(connection: Connection, entry: PendingEntry) -> dict[str, Any]:
    where = {"workspace": WORKSPACE, "name": entry.model}
    connection.execute(_LOCK, where)
    if not entry.deletes:
        there = {**where, "version": entry.version}
        return _append(connection, entry, SqlModelVersionTag, there, entry.facts)
    values = connection.execute(_OF_VERSION, {**where, "version": entry.version, "prefix": HISTORY}).scalars()
    gone = list(_ranges(values))
    for start in range(0, max(len(gone), 1), _MOST_RANGES):
        facts = {**entry.facts, "gone": gone[start : start + _MOST_RANGES]}
        document = _append(connection, entry, SqlRegisteredModelTag, where, facts)
    return document


def _append(
    connection: Connection,
    entry: PendingEntry,
    table: type[SqlModelVersionTag | SqlRegisteredModelTag],
    where: Mapping[str, object],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    names = {"workspace": WORKSPACE, "name": entry.model, "prefix": HISTORY}
    last = connection.execute(_LAST, names).one_or_none()
    key, value, number = last if last is not None else (None, None, None)
    at = entry.now()
    if key is not None and (found := _KEY.fullmatch(key)) is not None:
        # A clock may go backwards; the order of entries must not.
        before = datetime.datetime.strptime(found[1], _TIME).replace(tzinfo=datetime.UTC)
        at = max(at, before + _TICK)
    document = {
        # First, where `_LAST` finds it.
        "number": (number or 0) + 1,
        "before": "" if key is None else hashlib.sha256((value or "").encode()).hexdigest(),
        "at": at.isoformat(timespec="microseconds"),
        "version": str(entry.version),
        **facts,
    }
    new = f"{HISTORY}{at.strftime(_TIME)}-{secrets.token_hex(2)}"
    entry_text = json.dumps(document, separators=(",", ":"))
    connection.execute(insert(table).values(**where, key=new, value=entry_text))
    return document


def _ranges(values: Iterable[str | None]) -> Iterator[dict[str, Any]]:
    """Which numbers go with a version, and the digest of what stands before each gap that they leave."""
    numbered = []
    for value in values:
        try:
            document = json.loads(value or "")
            numbered.append((int(document["number"]), str(document["before"])))
        except (ValueError, KeyError, TypeError, RecursionError):
            # From before the chain.
            continue
    open_range: dict[str, Any] | None = None
    for number, before in sorted(numbered):
        if open_range is not None and number == open_range["last"] + 1:
            open_range["last"] = number
            continue
        if open_range is not None:
            yield open_range
        open_range = {"first": number, "last": number, "before": before}
    if open_range is not None:
        yield open_range
