"""Everything there is to say about one version: gathered from the server and S3, judged, and kept as data."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from model_lifecycle import evidence, history
from model_lifecycle.decision import Claim, Decision, claims, json_number
from model_lifecycle.errors import LifecycleError
from model_lifecycle.evidence import Integrity, StoredFile, UnreadableError
from model_lifecycle.history import Event, History, Tenure
from model_lifecycle.registry import Model, Registry, Version

_ENVIRONMENT = ("requirements.txt", "python_env.yaml", "conda.yaml")
_IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}
_MOST_IMAGES, _LARGEST_IMAGE = 12, 2 * 1024 * 1024
_LARGEST_TEXT, _MOST_NAMED = 256 * 1024, 20
_CODE = {
    "commit": "mlflow.source.git.commit",
    "revision": "code.revision",
    "branch": "mlflow.source.git.branch",
    "repository": "mlflow.source.git.repoURL",
    "entry point": "mlflow.source.name",
}


@dataclass(frozen=True)
class LifeEvent:
    """One thing that happened to the version, as the server recorded it: `by` is a verified name.

    `entry` is its number in the model's history; a decision came with the change, and is kept there too.
    """

    at: str
    what: str
    by: str
    detail: str = ""
    entry: int | None = None
    decision: Decision | None = None


@dataclass(frozen=True)
class Live:
    """A time in which consumers got this version by `name` (a stage or an alias)."""

    name: str
    since: str
    until: str


@dataclass(frozen=True)
class Dataset:
    """Data that the run says it used."""

    name: str
    digest: str
    context: str
    source: str
    source_type: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Plot:
    """A plot among the run's artifacts."""

    path: str
    media_type: str
    base64: str


@dataclass(frozen=True)
class Explanation:
    """The whole account of one version.

    `integrity` is what S3 said of the sealed files; `record_problems` what shows that the server's history of
    the model is not whole. What clients wrote is in `claims`, and judges nothing; so are, by their nature,
    the description, parameters, data and code.
    """

    generated: str
    server: str
    name: str
    version: str
    stage: str
    aliases: tuple[str, ...]
    asked: str
    description: str
    registered_at: str
    registered_by: str
    trained_by: str
    trained_at: str
    approved_by: tuple[str, ...]
    run_id: str
    run_name: str
    experiment: str
    source: str
    artifact_uri: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    data: tuple[Dataset, ...]
    code: Mapping[str, str]
    environment: Mapping[str, str]
    life: tuple[LifeEvent, ...]
    live: tuple[Live, ...]
    stage_history: tuple[Mapping[str, str], ...]
    integrity: Integrity
    record_entries: int
    record_problems: tuple[str, ...]
    claims: tuple[Claim, ...]
    warnings: tuple[str, ...]
    images: tuple[Plot, ...] = ()

    @property
    def tampered(self) -> bool:
        """Whether a file is not what was sealed, or the record is not whole."""
        return self.integrity.verdict == "tampered" or bool(self.record_problems)

    def as_dict(self) -> dict[str, Any]:
        """The account for machines, without the images; keys are stable."""
        document = _plain(asdict(replace(self, images=())))
        del document["images"]
        document.update(
            integrity=self.integrity.verdict,
            integrity_note=self.integrity.note,
            verified_at=self.integrity.at,
            seal=_plain(self.integrity.seal),
            damage=[{**asdict(each), "says": str(each)} for each in self.integrity.damage],
            files=_plain(self.integrity.files),
        )
        outcome = "tampered" if self.tampered else self.integrity.verdict
        return {"outcome": outcome, "exit_code": 6 if self.tampered else 0, **document}


def _plain(value: Any) -> Any:
    """The same as JSON has it."""
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return json_number(value)


def explain(
    registry: Registry,
    name: str,
    *,
    version: str = "",
    alias: str = "",
    stage: str = "",
    at: str = "",
    verify: bool = True,
    s3: Callable[[], Any] = evidence.client,
) -> Explanation:
    """Gather everything about a version, found by exactly one of number, alias, stage or moment.

    `at` is an ISO 8601 date or time (UTC if it says no zone) and means: what `models:/NAME/Production` was
    then. Works for archived versions as for live ones.

    Raises:
        LifecycleError: there is no such version, or nothing was in Production then.
    """
    s3 = cache(s3)
    model = registry.model(name)
    record = model.history()
    seen = record.events
    number, asked = _choose(model, seen, version=version, alias=alias, stage=stage, at=at)
    chosen = model.version(number)
    run = registry.run(chosen.run_id) if chosen.run_id else None
    tags: Mapping[str, str] = dict(run.data.tags) if run else {}
    served = registry.artifact_uri(chosen)
    artifacts, unknown = _artifacts(s3, run)
    production = history.stage_tenures(seen, "Production")
    return Explanation(
        generated=_now(),
        server=registry.uri,
        name=name,
        version=number,
        stage=chosen.stage,
        aliases=tuple(sorted(each for each, held in model.aliases.items() if held == number)),
        asked=asked,
        description=chosen.description,
        registered_at=_of_ms(chosen.created_ms),
        registered_by=chosen.tags.get(history.PRINCIPAL, ""),
        trained_by=tags.get(history.PRINCIPAL, ""),
        trained_at=_of_ms(run.info.start_time) if run else "",
        approved_by=_approvers(record, number),
        run_id=chosen.run_id,
        run_name=(run.info.run_name or "") if run else "",
        experiment=registry.experiment(run.info.experiment_id) if run else "",
        source=chosen.source,
        artifact_uri=served,
        parameters=dict(sorted(run.data.params.items())) if run else {},
        metrics=dict(sorted(run.data.metrics.items())) if run else {},
        data=tuple(_data(run)) if run else (),
        code={label: tags[key] for label, key in _CODE.items() if tags.get(key)},
        environment=_environment(s3, served),
        life=tuple(_life(chosen, seen, tags, run)),
        live=tuple(_live(seen, number)),
        stage_history=tuple(_row(tenure) for tenure in production),
        integrity=registry.integrity(model, number, s3, verify=verify),
        record_entries=sum(event.number is not None for event in seen),
        record_problems=record.problems,
        claims=claims(chosen.tags),
        warnings=(*_warnings(chosen, model, seen, run), *_late(artifacts, unknown, record.of(number))),
        images=tuple(_images(s3, artifacts, run)),
    )


def _choose(
    model: Model, seen: tuple[Event, ...], *, version: str, alias: str, stage: str, at: str
) -> tuple[str, str]:
    if version:
        return version, f"version {version}"
    if alias:
        if alias not in model.aliases:
            known = ", ".join(sorted(model.aliases)) or "none"
            raise LifecycleError(f'"{model.name}" has no alias "{alias}"; its aliases: {known}')
        return model.aliases[alias], f"alias {alias}"
    if stage:
        holder = model.holder(stage)
        if not holder:
            raise LifecycleError(f'no version of "{model.name}" is in stage {stage}')
        return holder, f"stage {stage}"
    start, end = moment(at)
    tenures = [each for each in history.stage_tenures(seen, "Production") if each.overlaps(start, end)]
    if not tenures:
        raise LifecycleError(
            f'no version of "{model.name}" was in Production at {at}, as far as the server has recorded'
        )
    last = tenures[-1]
    asked = f"Production at {at}"
    if len(tenures) > 1:
        others = ", then ".join(f"version {each.version}" for each in tenures)
        asked += f" ({others}: give a time to choose; this is the last)"
    return last.version, asked


def moment(text: str) -> tuple[dt.datetime, dt.datetime]:
    """The half-open interval that a date (a whole day, UTC) or a time (one instant) means.

    Raises:
        LifecycleError: it is neither.
    """
    try:
        if len(text) == len("2026-01-31"):
            day = dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
            return day, day + dt.timedelta(days=1)
        instant = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise LifecycleError(
            f'"{text}" is no date; write 2026-01-31 for a day (UTC) or 2026-01-31T12:00Z for a moment'
        ) from error
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=dt.UTC)
    return instant, instant + dt.timedelta(microseconds=1)


def _life(
    version: Version, seen: tuple[Event, ...], tags: Mapping[str, str], run: Any
) -> Iterator[LifeEvent]:
    """Everything that happened to the version, oldest first."""
    if run is not None:
        yield LifeEvent(_of_ms(run.info.start_time), "trained", tags.get(history.PRINCIPAL, ""), "")
    yield LifeEvent(_of_ms(version.created_ms), "registered", version.tags.get(history.PRINCIPAL, ""))
    stage = "None"
    for event in seen:
        own = event.version == version.number
        if own and event.action == "stage":
            yield _moved(event, stage)
            stage = event.stage
        elif own:
            verb = "given the alias" if event.action == "alias" else "lost the alias"
            yield _happened(event, f"{verb} {event.alias}")
        elif event.action == "stage" and event.archived_others and event.stage == stage:
            yield _happened(event, "archived", f"version {event.version} took its place in {stage}")
            stage = "Archived"
        elif event.action == "alias" and event.previous == version.number:
            yield _happened(event, f"lost the alias {event.alias}", f"version {event.version} has it now")


def _happened(event: Event, what: str, detail: str = "") -> LifeEvent:
    return LifeEvent(event.at.isoformat(), what, event.principal, detail, event.number)


def _moved(event: Event, stage: str) -> LifeEvent:
    what = {"Archived": "archived"}.get(event.stage, f"moved to {event.stage}")
    if event.decision is not None and event.decision.action == "rollback":
        what = f"back in {event.stage} by a rollback"
    detail = f"from {stage}"
    if event.previous and event.previous != event.version and event.stage != "Archived":
        detail += f", instead of version {event.previous}"
    if event.decision is None and event.number is not None:
        detail += "; without a recorded policy decision"
    return replace(_happened(event, what, detail), decision=event.decision)


def _live(seen: tuple[Event, ...], number: str) -> Iterator[Live]:
    names = {"Production": history.stage_tenures(seen, "Production")}
    names["Staging"] = history.stage_tenures(seen, "Staging")
    for alias in sorted({event.alias for event in seen if event.alias}):
        names[f"@{alias}"] = history.alias_tenures(seen, alias)
    for name, tenures in names.items():
        for tenure in tenures:
            if tenure.version == number:
                row = _row(tenure)
                yield Live(name, row["since"], row["until"])


def _row(tenure: Tenure) -> dict[str, str]:
    return {
        "version": tenure.version,
        "since": tenure.since.isoformat() if tenure.since else "",
        "until": tenure.until.isoformat() if tenure.until else "",
        "by": tenure.by,
    }


def _approvers(record: History, number: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(event.principal for event in record.of(number) if event.brings_live))


def _data(run: Any) -> Iterator[Dataset]:
    for each in run.inputs.dataset_inputs if run.inputs else ():
        tags = {tag.key: tag.value for tag in each.tags}
        context = tags.pop("mlflow.data.context", "")
        of = each.dataset
        yield Dataset(of.name, of.digest, context, of.source or "", of.source_type or "", tags)


def _environment(s3: Callable[[], Any], served: str) -> dict[str, str]:
    """The files that say what the model needs, as far as they can be read."""
    found = {name: evidence.beginning(s3, f"{served}/{name}", limit=_LARGEST_TEXT) for name in _ENVIRONMENT}
    return {name: content.decode(errors="replace") for name, content in found.items() if content}


def _artifacts(s3: Callable[[], Any], run: Any) -> tuple[tuple[StoredFile, ...], str]:
    """The files of the run, or why they are unknown."""
    try:
        return (evidence.stored(s3, run.info.artifact_uri) if run else ()), ""
    except UnreadableError as error:
        return (), str(error)


def _late(found: tuple[StoredFile, ...], unknown: str, own: tuple[Event, ...]) -> Iterator[str]:
    """The run's artifacts are no part of what was sealed: say which are younger than the promotion."""
    first = next((event.at for event in own if event.brings_live), None)
    if first is None:
        return
    if unknown:
        yield f"whether the run's artifacts are older than the first promotion is unknown: {unknown}"
    late = [file.path for file in found if file.modified > first]
    for path in late[:_MOST_NAMED]:
        yield f"the run's artifact {path} was written after the version's first promotion"
    if len(late) > _MOST_NAMED:
        yield f"so were {len(late) - _MOST_NAMED} more of the run's artifacts"


def _images(s3: Callable[[], Any], found: tuple[StoredFile, ...], run: Any) -> Iterator[Plot]:
    """The plots of the run; those that cannot be read are left out."""
    plots = [file for file in found if file.path.endswith(tuple(_IMAGES)) and file.size <= _LARGEST_IMAGE]
    for file in plots[:_MOST_IMAGES]:
        content = evidence.beginning(s3, f"{run.info.artifact_uri}/{file.path}", limit=_LARGEST_IMAGE)
        if content:
            kind = _IMAGES[Path(file.path).suffix]
            yield Plot(file.path, kind, base64.b64encode(content).decode())


def _warnings(version: Version, model: Model, seen: tuple[Event, ...], run: Any) -> Iterator[str]:
    if run is None:
        yield "the version names no run, so parameters, metrics, data and code are unknown"
    elif history.PRINCIPAL not in run.data.tags:
        yield "the server has not recorded who trained it"
    for event in seen:
        if event.action == history.DELETED:
            when = f"{event.at:%Y-%m-%d %H:%M:%S} UTC by {event.principal}"
            yield f"version {event.version} was deleted at {when}: when it was live is not known any more"
    derived = history.stage_tenures(seen, "Production")
    holder = derived[-1].version if derived and derived[-1].until is None else ""
    if seen and holder != model.holder("Production"):
        by_history = f"version {holder}" if holder else "nothing"
        by_registry = model.holder("Production") or "nothing"
        yield (
            f"by the history, {by_history} is in Production; by the registry, {by_registry}: "
            "a version was deleted, or changed past the server"
        )
    if version.stage != "None" and not any(event.version == version.number for event in seen):
        yield f"it is in {version.stage}, but the server has no record of how it came there"


def _of_ms(milliseconds: int | None) -> str:
    """ "" for none, and for what is no time: clients choose when a run began."""
    try:
        moment = dt.datetime.fromtimestamp((milliseconds or 0) / 1000, dt.UTC) if milliseconds else None
    except (OverflowError, ValueError, OSError):
        moment = None
    return moment.isoformat(timespec="milliseconds") if moment else ""


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
