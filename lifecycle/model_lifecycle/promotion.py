"""Promote, roll back, archive: judge by the policy, change under a condition, write down the decision.

Only metadata changes. The order is: judge, move the stage (the one step in which somebody wins), bring the
aliases into step, write the decision. A command that was cut short is completed by running it again.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from model_lifecycle import ci, decision, evidence, history
from model_lifecycle.decision import Decision
from model_lifecycle.errors import ConflictError, LifecycleError
from model_lifecycle.evidence import Manifest
from model_lifecycle.history import Event
from model_lifecycle.policy import LoadedPolicy, Transition
from model_lifecycle.registry import ChangedMeanwhileError, Model, Registry, Version
from model_lifecycle.rules import Approver, Facts, Figures, Finding, RefusedByPolicyError, evaluate

TargetStage = Literal["staging", "production"]
STAGES: Mapping[TargetStage, str] = {"staging": "Staging", "production": "Production"}
_EVALUATION = frozenset(("eval", "evaluation", "test", "testing", "validation", "holdout"))
_ATTEMPTS = 5


@dataclass(frozen=True)
class Outcome:
    """What a command did. `changed` is False if it had been done before, or was only asked for."""

    action: str
    model: str
    version: str
    stage: str
    alias: str
    changed: bool
    instead_of: str = ""
    findings: tuple[Finding, ...] = ()
    decision: Decision | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The outcome for machines; keys are stable."""
        return {
            "outcome": "done" if self.changed else "nothing to do",
            "exit_code": 0,
            "action": self.action,
            "model": self.model,
            "version": self.version,
            "stage": self.stage,
            "alias": self.alias,
            "instead_of": self.instead_of,
            "rules": [finding.as_dict() for finding in self.findings],
            "decision": asdict(self.decision) if self.decision else None,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Lifecycle:
    """What every command needs: the registry, the policy, S3 and the environment of the CI run."""

    registry: Registry
    policy: LoadedPolicy
    s3: Callable[[], Any] = evidence.client
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


def promote(
    lifecycle: Lifecycle, name: str, number: str, *, to: TargetStage, dry_run: bool = False
) -> Outcome:
    """Move a version to Staging or Production, and its alias with it, if the policy allows.

    Whoever held the stage is archived. With `dry_run` the rules are judged and nothing is changed.

    Raises:
        RefusedByPolicyError: the policy refuses; carries every rule. Nothing was changed.
        NotPermittedError: the server refuses, by who we are. Nothing was changed.
        ConflictError: another version was promoted meanwhile. Nothing was changed.
    """
    stage, alias = STAGES[to], getattr(lifecycle.policy.policy.aliases, to)
    transition = lifecycle.policy.transition(to, model=name)
    approver = lifecycle.registry.whoami()
    model = lifecycle.registry.model(name)
    version = model.version(number)
    if model.holder(stage) == number:
        return _complete(lifecycle, model, version, transition, stage=stage, alias=alias, approver=approver)
    move = _Move(
        lifecycle, model, version, transition, approver, "promote", stage, alias, model.holder(stage)
    )
    return move.judged() if dry_run else move.made()


def rollback(
    lifecycle: Lifecycle, name: str, *, away_from: str = "", to: str = "", dry_run: bool = False
) -> Outcome:
    """Make the version that was in Production before the present one Production again.

    `away_from`: the version to leave; if it is not in Production any more there is nothing to do, which
    makes the command safe to repeat. `to`: the version to return to, instead of the one before.

    Raises:
        LifecycleError: nothing is, or nothing else ever was, in Production.
        RefusedByPolicyError, NotPermittedError, ConflictError: as for `promote`.
    """
    stage, alias = "Production", lifecycle.policy.policy.aliases.production
    lifecycle.policy.require_model(name)
    transition = lifecycle.policy.policy.transitions.rollback
    approver = lifecycle.registry.whoami()
    model = lifecycle.registry.model(name)
    holder = model.holder(stage)
    if not holder:
        raise LifecycleError(f'model "{name}" has no version in Production, so there is nothing to roll back')
    if to == holder or away_from not in ("", holder):
        return _complete(
            lifecycle, model, model.version(holder), transition, stage=stage, alias=alias, approver=approver
        )
    tenures = history.stage_tenures(history.events(model.tags()), stage)
    target = to or history.before(tenures, existing=model.versions)
    if not target:
        raise LifecycleError(
            f'no other version of "{name}" was in Production before version {holder}, as far as the server '
            "has recorded; name one with --to, or archive this one"
        )
    if to and to not in {tenure.version for tenure in tenures}:
        raise LifecycleError(f"version {to} was never in Production: promote it instead")
    move = _Move(
        lifecycle, model, model.version(target), transition, approver, "rollback", stage, alias, holder
    )
    return move.judged() if dry_run else move.made()


def archive(lifecycle: Lifecycle, name: str, number: str, *, dry_run: bool = False) -> Outcome:
    """Move a version to Archived and take the aliases of the stages from it.

    Raises:
        RefusedByPolicyError, NotPermittedError: as for `promote`.
    """
    lifecycle.policy.require_model(name)
    transition = lifecycle.policy.policy.transitions.archived
    approver = lifecycle.registry.whoami()
    model = lifecycle.registry.model(name)
    version = model.version(number)
    if version.stage == "Archived":
        return Outcome("archive", name, number, "Archived", "", changed=False)
    move = _Move(lifecycle, model, version, transition, approver, "archive", "Archived", "", None)
    return move.judged() if dry_run else move.made()


def record(registry: Registry, name: str, number: str, s3: Callable[[], Any] = evidence.client) -> Manifest:
    """Record the manifest of a version's files, if none is recorded; best done right after registration.

    Raises:
        LifecycleError: the files cannot be read, or are not as recorded before.
    """
    version = registry.model(name).version(number)
    manifest, damage, problem = _inspect(registry, version, s3)
    if manifest is None:
        raise LifecycleError(f"version {number}: {problem}")
    if damage:
        raise LifecycleError(f"version {number} is not as it was recorded: {'; '.join(damage)}")
    _keep(registry, version, manifest)
    return manifest


@dataclass(frozen=True)
class _Move:
    """One change of a stage, from the first look to the written decision."""

    lifecycle: Lifecycle
    model: Model
    version: Version
    transition: Transition
    approver: Approver | None
    action: str
    stage: str
    alias: str
    holder: str | None

    def judged(self) -> Outcome:
        findings, _ = self._judge()
        return self._outcome(findings, changed=False, notes=("dry run: nothing was changed",))

    def made(self) -> Outcome:
        findings, manifest = self._judge()
        name, number = self.model.name, self.version.number
        registry = self.lifecycle.registry
        try:
            registry.move(
                name, number, self.stage, archive_existing=self.stage != "Archived", holder=self.holder
            )
        except ChangedMeanwhileError:
            model = registry.model(name)
            event = history.last_move(history.events(model.tags()), number, self.stage)
            # MLflow's client sends a request again if its answer was lost: then the winner is us.
            ours = (
                event is not None and self.approver is not None and event.principal == self.approver.principal
            )
            if not (ours and model.holder(self.stage) == number):
                raise self._lost(model) from None
        notes = self._align()
        if manifest is not None:
            _keep(registry, self.version, manifest)
        made = _write_down(self, findings, manifest)
        return self._outcome(findings, changed=True, notes=notes, made=made)

    def _judge(self) -> tuple[tuple[Finding, ...], Manifest | None]:
        facts, manifest = _facts(self)
        findings = evaluate(self.transition, facts)
        if not all(finding.passed for finding in findings):
            raise RefusedByPolicyError(f"to {self._intent()}", findings)
        return findings, manifest

    def _intent(self) -> str:
        number, name = self.version.number, self.model.name
        return {
            "promote": f'promote version {number} of "{name}" to {self.stage}',
            "rollback": f'roll "{name}" back to version {number}',
            "archive": f'archive version {number} of "{name}"',
        }[self.action]

    def _lost(self, model: Model) -> ConflictError:
        holder = model.holder(self.stage)
        if not holder:
            now = f"nobody holds {self.stage} any more"
        else:
            event = history.last_move(history.events(model.tags()), holder, self.stage)
            who = f" by {event.principal} at {event.at:%Y-%m-%d %H:%M:%S} UTC" if event else ""
            now = f"version {holder} was moved to {self.stage}{who}"
        return ConflictError(
            f"{now}, after this command had looked; version {self.version.number} was not moved. "
            "Compare with that version, and run the command again if it is still right"
        )

    def _align(self) -> tuple[str, ...]:
        registry, name, number = self.lifecycle.registry, self.model.name, self.version.number
        aliases = self.lifecycle.policy.policy.aliases
        wanted = {self.alias: number} if self.alias else {}
        ours = {aliases.staging, aliases.production} - {self.alias}
        for _ in range(_ATTEMPTS):
            model = registry.model(name)
            if self.alias and model.holder(self.stage) != number:
                return (f"version {model.holder(self.stage) or 'none'} has followed in {self.stage} already",)
            try:
                for alias, target in wanted.items():
                    if model.aliases.get(alias) != target:
                        registry.set_alias(name, alias, target, holder=model.aliases.get(alias, ""))
                for alias in ours:
                    # One version has one role: who becomes champion is no longer the challenger.
                    if model.aliases.get(alias) == number:
                        registry.remove_alias(name, alias, holder=number)
            except ChangedMeanwhileError:
                continue
            return ()
        raise LifecycleError(
            f"version {number} is in {self.stage}, but others keep changing the aliases of {name}; "
            "run the command again to bring them into step"
        )

    def _outcome(
        self,
        findings: tuple[Finding, ...],
        *,
        changed: bool,
        notes: tuple[str, ...] = (),
        made: Decision | None = None,
    ) -> Outcome:
        instead_of = self.holder or ""
        return Outcome(
            self.action,
            self.model.name,
            self.version.number,
            self.stage,
            self.alias,
            changed,
            instead_of,
            findings,
            made,
            notes,
        )


def _complete(
    lifecycle: Lifecycle,
    model: Model,
    version: Version,
    transition: Transition,
    *,
    stage: str,
    alias: str,
    approver: Approver | None,
) -> Outcome:
    """The version is there already: finish what an interrupted run of ours may have left undone."""
    seen = history.events(model.tags())
    event = history.last_move(seen, version.number, stage)
    action = "promote" if transition is not lifecycle.policy.policy.transitions.rollback else "rollback"
    previous = event.previous if event and event.previous != version.number else None
    anywhere = transition.model_copy(update={"from_stages": ()})
    move = _Move(lifecycle, model, version, anywhere, approver, action, stage, alias, previous)
    mine = event is not None and approver is not None and event.principal == approver.principal
    known = {each.event for each in decision.decisions(version.tags)}
    if not mine or event is None or event.identifier in known:
        return Outcome(
            action, model.name, version.number, stage, alias, changed=False, notes=_aligned(move, mine=mine)
        )
    findings, manifest = move._judge()
    notes = move._align()
    if manifest is not None:
        _keep(lifecycle.registry, version, manifest)
    made = _write_down(move, findings, manifest)
    return move._outcome(findings, changed=True, notes=("completed an earlier run", *notes), made=made)


def _aligned(move: _Move, *, mine: bool) -> tuple[str, ...]:
    already = f"version {move.version.number} is in {move.stage} already"
    return (already, *(move._align() if mine else ()))


def _write_down(move: _Move, findings: tuple[Finding, ...], manifest: Manifest | None) -> Decision:
    registry, name, number = move.lifecycle.registry, move.model.name, move.version.number
    event = history.last_move(history.events(registry.model(name).tags()), number, move.stage)
    made = decision.of(
        move.action,
        event=event or _unrecorded(number, move.stage),
        policy=move.lifecycle.policy,
        findings=findings,
        approver=move.approver,
        compared_with=move.holder or "",
        alias=move.alias,
        manifest_sha256=manifest.digest if manifest else "",
        ci=ci.run_of(move.lifecycle.environ),
    )
    registry.set_tag(name, number, *made.tag)
    return made


def _unrecorded(number: str, stage: str) -> Event:
    """What stands for the server's record at a server that keeps none."""
    now = dt.datetime.now(dt.UTC)
    key = f"{history.PREFIX}{now:%Y%m%dT%H%M%S.%f}Z-{secrets.token_hex(2)}"
    return Event(now, key, number, "", "stage", stage, "", archived_others=True, previous="")


def _facts(move: _Move) -> tuple[Facts, Manifest | None]:
    registry, version = move.lifecycle.registry, move.version
    run = registry.run(version.run_id) if version.run_id else None
    holder = move.holder if move.holder in move.model.versions else None
    compared = move.transition.metrics and holder
    damage: tuple[str, ...] | None = ()
    manifest, unreadable = None, ""
    if move.transition.manifest:
        manifest, damage, unreadable = _inspect(registry, version, move.lifecycle.s3)
    makers = {
        version.tags.get(history.PRINCIPAL, ""),
        run.data.tags.get(history.PRINCIPAL, "") if run else "",
    }
    facts = Facts(
        candidate=_figures(version, run),
        stage=version.stage,
        current=_current(registry, move.model.version(holder)) if compared and holder else None,
        approver=move.approver,
        makers=frozenset(makers - {""}),
        artifacts=_artifacts(registry, version) if move.transition.evidence else frozenset(),
        damage=damage,
        unreadable=unreadable,
    )
    return facts, manifest


def _current(registry: Registry, version: Version) -> Figures:
    return _figures(version, registry.run(version.run_id) if version.run_id else None)


def _figures(version: Version, run: Any) -> Figures:
    if run is None:
        return Figures(version.number, {})
    inputs = run.inputs.dataset_inputs if run.inputs else []
    contexts = {each.dataset.digest: {tag.value for tag in each.tags} for each in inputs}
    evaluated = {digest for digest, values in contexts.items() if values & _EVALUATION}
    return Figures(version.number, dict(run.data.metrics), frozenset(evaluated or contexts))


def _artifacts(registry: Registry, version: Version) -> frozenset[str]:
    """Every file path among the artifacts of the version's run."""
    if not version.run_id:
        return frozenset()
    found, folders = set(), [""]
    while folders:
        for entry in registry.client.list_artifacts(version.run_id, folders.pop() or None):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                found.add(entry.path)
    return frozenset(found)


def _inspect(
    registry: Registry, version: Version, s3: Callable[[], Any]
) -> tuple[Manifest | None, tuple[str, ...] | None, str]:
    """The manifest (as recorded, or made now), what is wrong with the files, and why they are unreadable."""
    try:
        recorded = evidence.Manifest.from_tags(version.tags)
        if recorded is None:
            recorded = evidence.record(s3(), registry.artifact_uri(version))
            damage: tuple[str, ...] = ()
        else:
            damage = tuple(str(each) for each in evidence.verify(s3(), recorded))
    except evidence.UnreadableError as error:
        return None, None, str(error)
    moves = history.events({version.number: version.tags})
    if moves:
        late = evidence.written_after(recorded, moves[0].at)
        when = f"{moves[0].at:%Y-%m-%d %H:%M:%S} UTC"
        damage += tuple(f"{path} was written after the version's first promotion ({when})" for path in late)
    return recorded, damage, ""


def _keep(registry: Registry, version: Version, manifest: Manifest) -> None:
    if evidence.TAG not in version.tags:
        for key, value in manifest.to_tags().items():
            registry.set_tag(version.name, version.number, key, value)
