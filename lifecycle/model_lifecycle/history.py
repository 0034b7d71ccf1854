"""What the server has recorded about a model's stages and aliases, and what follows from it. Pure.

The tags `mlflow_aws.history.*` are written by the server alone, with the verified principal. Each entry has a
number and the SHA-256 of the one before it, so a missing or altered one shows; entries that are older than
that have neither.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import from_json

from model_lifecycle.decision import Decision, decision_of

PREFIX = "mlflow_aws.history."
PRINCIPAL = "mlflow_aws.principal"
DELETED = "version-deleted"

Nullable = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]


class Gone(BaseModel):
    """Entries that went with a deleted version: `before` is the digest of the one before the first."""

    model_config = ConfigDict(frozen=True)

    first: int
    last: int
    before: str


class Event(BaseModel):
    """One change of a stage or an alias, or a version's deletion, as the server recorded it."""

    model_config = ConfigDict(frozen=True)

    at: AwareDatetime
    key: str
    version: str
    action: str
    principal: Nullable = ""
    stage: Nullable = ""
    alias: Nullable = ""
    archived_others: bool = Field(default=False, alias="archive_existing_versions")
    previous: Nullable = ""
    number: int | None = None
    before: Nullable = ""
    seal: Nullable = ""
    decision: Annotated[Decision | None, BeforeValidator(decision_of)] = None
    gone: tuple[Gone, ...] = ()

    @property
    def brings_live(self) -> bool:
        """Whether it put the version where consumers load it from."""
        return self.stage in ("Staging", "Production")


@dataclass(frozen=True)
class History:
    """A model's record: what can be read of it, in order, and what shows that it is not whole."""

    events: tuple[Event, ...]
    problems: tuple[str, ...] = ()

    def of(self, version: str) -> tuple[Event, ...]:
        """The events of one version."""
        return tuple(event for event in self.events if event.version == version)


@dataclass(frozen=True)
class Tenure:
    """A time in which a stage or an alias meant one version; `since` None: from before the record."""

    version: str
    since: dt.datetime | None
    until: dt.datetime | None
    by: str

    def overlaps(self, start: dt.datetime, end: dt.datetime) -> bool:
        """Whether it lasted at some moment in [start, end)."""
        return (self.since is None or self.since < end) and (self.until is None or start < self.until)


def record(tags_of: Mapping[str, Mapping[str, str]], model_tags: Mapping[str, str]) -> History:
    """The history of a model, from the tags of each of its versions and its own (of deleted versions)."""
    entries = sorted(
        (key, value, version)
        for version, tags in (*tags_of.items(), ("", model_tags))
        for key, value in tags.items()
        if key.startswith(PREFIX)
    )
    links: list[tuple[Event, str]] = []
    problems = []
    for key, value, version in entries:
        try:
            event = _event(key, value, version)
        except ValueError:
            problems.append(f"the entry {key} cannot be read")
            continue
        links.append((event, hashlib.sha256(value.encode()).hexdigest()))
        if version not in ("", event.version):
            problems.append(f"the entry {key} of version {event.version} is found in version {version}")
    return History(tuple(event for event, _ in links), (*problems, *_broken(links)))


def _event(key: str, value: str, version: str) -> Event:
    raw = from_json(value)
    if not isinstance(raw, dict):
        raise ValueError(value)
    # Entries from before the chain do not name their version.
    return Event.model_validate({"version": version, **raw, "key": key})


def _broken(links: Sequence[tuple[Event, str]]) -> Iterator[str]:
    """What is missing or altered. A version that is deleted takes its entries with it, which is recorded."""
    gone = {part.first: part for event, _ in links for part in event.gone}
    deleted = any(event.action == DELETED for event, _ in links)
    last = 0
    digest: str | None = ""
    for event, own_digest in links:
        if event.number is None:
            digest = own_digest
            continue
        while (part := gone.get(last + 1)) is not None and part.last < event.number:
            if last and digest is not None and part.before != digest:
                yield f"the entry {last} is not the one that the deleted entry {part.first} followed"
            last, digest = part.last, None
        if not last and deleted:
            # What came before the numbers may have gone with a version, too.
            digest = None
        if event.number != last + 1:
            yield f"after the entry {last} comes {event.number} ({event.key})"
        elif digest is not None and event.before != digest:
            yield f"the entry {event.number} ({event.key}) does not follow from the one before it"
        last, digest = event.number, own_digest


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
