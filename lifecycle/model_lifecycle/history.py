"""What the server has recorded about a model's stages and aliases, and what follows from it. Pure.

The tags `mlflow_aws.history.*` are written by the server alone, with the verified principal.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

PREFIX = "mlflow_aws.history."
PRINCIPAL = "mlflow_aws.principal"


@dataclass(frozen=True)
class Event:
    """One change of a stage or an alias, as the server saw it."""

    at: dt.datetime
    key: str
    version: str
    principal: str
    action: str
    stage: str
    alias: str
    archived_others: bool
    previous: str

    @property
    def identifier(self) -> str:
        """What is unique about it: the time stamp and the random end of its tag."""
        return self.key.removeprefix(PREFIX)


@dataclass(frozen=True)
class Tenure:
    """A time in which a stage or an alias meant one version; `since` None: from before the record."""

    version: str
    since: dt.datetime | None
    until: dt.datetime | None
    by: str

    def includes(self, moment: dt.datetime) -> bool:
        """Whether it lasted at this moment."""
        return (self.since is None or self.since <= moment) and (self.until is None or moment < self.until)

    def overlaps(self, start: dt.datetime, end: dt.datetime) -> bool:
        """Whether it lasted at some moment in [start, end)."""
        return (self.since is None or self.since < end) and (self.until is None or start < self.until)


def events(tags_of: Mapping[str, Mapping[str, str]]) -> tuple[Event, ...]:
    """The events of a model in order, from the tags of each of its versions."""
    found = [
        _event(version, key, value)
        for version, tags in tags_of.items()
        for key, value in tags.items()
        if key.startswith(PREFIX)
    ]
    return tuple(sorted(found, key=lambda event: (event.at, event.key)))


def _event(version: str, key: str, value: str) -> Event:
    raw: dict[str, Any] = json.loads(value)
    return Event(
        at=dt.datetime.fromisoformat(raw["at"]),
        key=key,
        version=version,
        principal=raw.get("principal") or "",
        action=raw["action"],
        stage=raw.get("stage") or "",
        alias=raw.get("alias") or "",
        archived_others=bool(raw.get("archive_existing_versions")),
        previous=str(raw.get("previous") or ""),
    )


def stage_tenures(history: Sequence[Event], stage: str) -> tuple[Tenure, ...]:
    """Which version `models:/NAME/STAGE` meant, and when.

    Where a stage holds several versions, MLflow resolves it to the one with the highest number.
    """
    holders: set[str] = set()
    tenures: list[Tenure] = []
    for event in history:
        if event.action != "stage":
            continue
        if not tenures and not holders and event.stage == stage and event.previous not in ("", event.version):
            # It was there before the server began to record.
            holders.add(event.previous)
            tenures.append(Tenure(event.previous, None, None, ""))
        if event.stage == stage:
            holders = {event.version} if event.archived_others else holders | {event.version}
        else:
            holders.discard(event.version)
        _succeed(tenures, max(holders, key=int, default=""), event)
    return tuple(tenures)


def alias_tenures(history: Sequence[Event], alias: str) -> tuple[Tenure, ...]:
    """Which version `models:/NAME@ALIAS` meant, and when."""
    tenures: list[Tenure] = []
    for event in history:
        if event.alias != alias or event.action not in ("alias", "alias-removed"):
            continue
        if not tenures and event.previous not in ("", event.version):
            tenures.append(Tenure(event.previous, None, None, ""))
        _succeed(tenures, event.version if event.action == "alias" else "", event)
    return tuple(tenures)


def _succeed(tenures: list[Tenure], holder: str, event: Event) -> None:
    last = tenures[-1] if tenures and tenures[-1].until is None else None
    if last is not None and last.version == holder:
        return
    if last is not None:
        tenures[-1] = replace(last, until=event.at)
    if holder:
        tenures.append(Tenure(holder, event.at, None, event.principal))


def before(tenures: Iterable[Tenure], *, existing: Iterable[str]) -> str:
    """The version to return to: who held before the present holder; "" if there is none.

    Returning to an earlier version forgets what came after it, so that two rollbacks in a row go back two
    versions rather than to and fro. Versions that no longer exist are passed over.
    """
    present = set(existing)
    line: list[str] = []
    for tenure in tenures:
        if tenure.version in line:
            del line[line.index(tenure.version) + 1 :]
        else:
            line.append(tenure.version)
    return next((version for version in reversed(line[:-1]) if version in present), "")


def last_move(history: Sequence[Event], version: str, stage: str) -> Event | None:
    """The latest event that brought a version to a stage."""
    moves = (
        e for e in reversed(history) if e.action == "stage" and e.version == version and e.stage == stage
    )
    return next(moves, None)
