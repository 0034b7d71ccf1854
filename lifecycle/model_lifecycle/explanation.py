"""Everything there is to say about one version: gathered from the server and S3, judged, and kept as data."""

from __future__ import annotations

import base64
import datetime as dt
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from model_lifecycle import decision, evidence, history
from model_lifecycle.errors import LifecycleError
from model_lifecycle.evidence import Damage
from model_lifecycle.history import Event, Tenure
from model_lifecycle.registry import Model, Registry, Version

_ENVIRONMENT = ("requirements.txt", "python_env.yaml", "conda.yaml")
_IMAGES = (".png", ".jpg", ".jpeg", ".svg")
_MOST_IMAGES, _LARGEST_IMAGE = 12, 2 * 1024 * 1024
_CODE = {
    "commit": "mlflow.source.git.commit",
    "revision": "code.revision",
    "branch": "mlflow.source.git.branch",
    "repository": "mlflow.source.git.repoURL",
    "entry point": "mlflow.source.name",
}


@dataclass(frozen=True)
class LifeEvent:
    """One thing that happened to the version. `by` is verified by the server; `detail` explains it."""

    at: str
    what: str
    by: str
    detail: str = ""
    decision: Mapping[str, Any] | None = None
    confirmed: bool = True


@dataclass(frozen=True)
class Live:
    """A time in which consumers got this version by `name` (a stage or an alias)."""

    name: str
    since: str
    until: str


@dataclass(frozen=True)
class Plot:
    """A plot among the run's artifacts."""

    path: str
    media_type: str
    base64: str


@dataclass(frozen=True)
class Explanation:
    """The whole account of one version.

    `integrity` is "intact", "tampered", "not recorded", "unreadable" or "not verified".
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
    data: tuple[Mapping[str, str], ...]
    code: Mapping[str, str]
    environment: Mapping[str, str]
    life: tuple[LifeEvent, ...]
    live: tuple[Live, ...]
    stage_history: tuple[Mapping[str, str], ...]
    integrity: str
    integrity_note: str
    damage: tuple[Damage, ...]
    files: tuple[evidence.Item, ...]
    manifest_sha256: str
    warnings: tuple[str, ...]
    images: tuple[Plot, ...] = ()

    @property
    def tampered(self) -> bool:
        """Whether a file is not what was recorded."""
        return self.integrity == "tampered"

    def as_dict(self) -> dict[str, Any]:
        """The account for machines, without the images; keys are stable."""
        document = asdict(replace(self, images=()))
        del document["images"]
        document["damage"] = [{**asdict(each), "says": str(each)} for each in self.damage]
        return {"outcome": self.integrity, "exit_code": 6 if self.tampered else 0, **document}


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
    model = registry.model(name)
    seen = history.events(model.tags())
    number, asked = _choose(model, seen, version=version, alias=alias, stage=stage, at=at)
    chosen = model.version(number)
    run = registry.run(chosen.run_id) if chosen.run_id else None
    tags: Mapping[str, str] = dict(run.data.tags) if run else {}
    uri = registry.artifact_uri(chosen)
    integrity, note, damage, manifest = _integrity(chosen, verify=verify, s3=s3)
    life = tuple(_life(chosen, seen, tags, run))
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
        approved_by=_approvers(seen, number),
        run_id=chosen.run_id,
        run_name=(run.info.run_name or "") if run else "",
        experiment=registry.client.get_experiment(run.info.experiment_id).name if run else "",
        source=chosen.source,
        artifact_uri=uri,
        parameters=dict(sorted(run.data.params.items())) if run else {},
        metrics=dict(sorted(run.data.metrics.items())) if run else {},
        data=tuple(_data(run)) if run else (),
        code={label: tags[key] for label, key in _CODE.items() if tags.get(key)},
        environment=_environment(uri),
        life=life,
        live=tuple(_live(seen, number)),
        stage_history=tuple(_row(tenure) for tenure in production),
        integrity=integrity,
        integrity_note=note,
        damage=damage,
        files=manifest.items if manifest else (),
        manifest_sha256=manifest.digest if manifest else "",
        warnings=tuple(_warnings(chosen, model, seen, run)),
        images=tuple(_images(registry, chosen.run_id)) if run else (),
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


def _integrity(
    version: Version, *, verify: bool, s3: Callable[[], Any]
) -> tuple[str, str, tuple[Damage, ...], evidence.Manifest | None]:
    manifest = evidence.Manifest.from_tags(version.tags)
    if manifest is None:
        return "not recorded", "no manifest was recorded for this version", (), None
    made = [each for each in decision.decisions(version.tags) if each.manifest_sha256]
    differing = [each for each in made if each.manifest_sha256 != manifest.digest]
    if differing:
        note = f"the recorded manifest is not the one of the decision at {differing[0].at}"
        return "tampered", note, (), manifest
    moves = history.events({version.number: version.tags})
    late = evidence.written_after(manifest, moves[0].at) if moves else ()
    if late:
        note = f"written after the version's first promotion at {moves[0].at.isoformat()}: {', '.join(late)}"
        return "tampered", note, (), manifest
    if not verify:
        return "not verified", "the artifacts in S3 were not read", (), manifest
    try:
        damage = evidence.verify(s3(), manifest)
    except evidence.UnreadableError as error:
        return "unreadable", str(error), (), manifest
    if damage:
        return (
            "tampered",
            f"{len(damage)} of {len(manifest.items)} files are not as recorded",
            damage,
            manifest,
        )
    files, size = evidence.totals(manifest.items)
    return "intact", f"{files} files, {size:,} bytes: object versions and SHA-256 as recorded", (), manifest


def _life(
    version: Version, seen: tuple[Event, ...], tags: Mapping[str, str], run: Any
) -> Iterator[LifeEvent]:
    """Everything that happened to the version, oldest first."""
    if run is not None:
        yield LifeEvent(_of_ms(run.info.start_time), "trained", tags.get(history.PRINCIPAL, ""), "")
    yield LifeEvent(_of_ms(version.created_ms), "registered", version.tags.get(history.PRINCIPAL, ""))
    made = {each.event: each for each in decision.decisions(version.tags)}
    stage = "None"
    for event in seen:
        own = event.version == version.number
        if own and event.action == "stage":
            taken = made.pop(event.identifier, None)
            yield _moved(event, stage, taken)
            stage = event.stage
        elif own:
            verb = "given the alias" if event.action == "alias" else "lost the alias"
            yield LifeEvent(event.at.isoformat(), f"{verb} {event.alias}", event.principal)
        elif event.action == "stage" and event.archived_others and event.stage == stage:
            detail = f"version {event.version} took its place in {stage}"
            yield LifeEvent(event.at.isoformat(), "archived", event.principal, detail)
            stage = "Archived"
        elif event.action == "alias" and event.previous == version.number:
            detail = f"version {event.version} has it now"
            yield LifeEvent(event.at.isoformat(), f"lost the alias {event.alias}", event.principal, detail)
    for taken in made.values():
        yield LifeEvent(
            taken.at,
            f"decision to {taken.action}",
            "",
            "the server has no record that this was carried out",
            asdict(taken),
            confirmed=False,
        )


def _moved(event: Event, stage: str, taken: decision.Decision | None) -> LifeEvent:
    what = {"Archived": "archived"}.get(event.stage, f"moved to {event.stage}")
    if taken is not None and taken.action == "rollback":
        what = f"back in {event.stage} by a rollback"
    detail = f"from {stage}"
    if event.previous and event.previous != event.version and event.stage != "Archived":
        detail += f", instead of version {event.previous}"
    if taken is None:
        detail += "; without a recorded policy decision"
    return LifeEvent(
        event.at.isoformat(),
        what,
        event.principal,
        detail,
        asdict(taken) if taken else None,
        confirmed=taken is None or taken.is_confirmed_by(event),
    )


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


def _approvers(seen: tuple[Event, ...], number: str) -> tuple[str, ...]:
    moves = (e for e in seen if e.version == number and e.stage in ("Staging", "Production"))
    return tuple(dict.fromkeys(event.principal for event in moves))


def _data(run: Any) -> Iterator[Mapping[str, str]]:
    for each in run.inputs.dataset_inputs if run.inputs else ():
        contexts = [tag.value for tag in each.tags if tag.key == "mlflow.data.context"]
        more = {tag.key: tag.value for tag in each.tags if tag.key != "mlflow.data.context"}
        yield {
            "name": each.dataset.name,
            "digest": each.dataset.digest,
            "context": ", ".join(contexts),
            "source": each.dataset.source,
            "source_type": each.dataset.source_type,
            **more,
        }


def _environment(uri: str) -> dict[str, str]:
    """The files that say what the model needs, as far as they can be read."""
    import mlflow

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in _ENVIRONMENT:
            try:
                path = mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/{name}", dst_path=folder)
                found[name] = Path(path).read_text(encoding="utf-8", errors="replace")
            except Exception:  # noqa: S112 - a deleted or unreadable file is the subject of `integrity`
                continue
    return found


def _images(registry: Registry, run_id: str) -> Iterator[Plot]:
    """The plots of the run; those that cannot be read are left out."""
    try:
        paths = list(_image_paths(registry, run_id))
    except Exception:
        return
    with tempfile.TemporaryDirectory() as folder:
        for path in paths[:_MOST_IMAGES]:
            try:
                content = Path(registry.client.download_artifacts(run_id, path, folder)).read_bytes()
            except Exception:  # noqa: S112 - as above
                continue
            kind = {".svg": "image/svg+xml", ".png": "image/png"}.get(Path(path).suffix, "image/jpeg")
            yield Plot(path, kind, base64.b64encode(content).decode())


def _image_paths(registry: Registry, run_id: str) -> Iterator[str]:
    folders = [""]
    while folders:
        for entry in sorted(
            registry.client.list_artifacts(run_id, folders.pop(0) or None), key=lambda e: e.path
        ):
            if entry.is_dir:
                folders.append(entry.path)
            elif entry.path.endswith(_IMAGES) and (entry.file_size or 0) <= _LARGEST_IMAGE:
                yield entry.path


def _warnings(version: Version, model: Model, seen: tuple[Event, ...], run: Any) -> Iterator[str]:
    if run is None:
        yield "the version names no run, so parameters, metrics, data and code are unknown"
    elif history.PRINCIPAL not in run.data.tags:
        yield "the server has not recorded who trained it"
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
    if not milliseconds:
        return ""
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC).isoformat(timespec="milliseconds")


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
