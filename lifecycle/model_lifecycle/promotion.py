"""Promote, roll back, archive: judge by the policy, then change under a condition.

Only metadata changes. The order is: judge, move the stage (the one step in which somebody wins, and with
which the server records the decision), bring the aliases into step. A command that was cut short is completed
by running it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from model_lifecycle import ci, decision, evidence, history
from model_lifecycle.decision import Decision
from model_lifecycle.errors import ConflictError, LifecycleError
from model_lifecycle.evidence import SealTag
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
    """What a command did. `changed` is False if it had been done before, or was only asked for.

    `entry` is the number of the server's record of it, and `seal` the SHA-256 of the manifest named there.
    """

    action: str
    model: str
    version: str
    stage: str
    alias: str
    changed: bool
    instead_of: str = ""
    findings: tuple[Finding, ...] = ()
    decision: Decision | None = None
    entry: int | None = None
    seal: str = ""
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
            "decision": self.decision.document() if self.decision else None,
            "entry": self.entry,
            "seal": self.seal,
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
        ConflictError: another version was promoted meanwhile, or the run's figures are no longer those that
            were judged. Nothing was changed.
    """
    stage, alias = STAGES[to], getattr(lifecycle.policy.policy.aliases, to)
    transition = lifecycle.policy.transition(to, model=name)
    approver = lifecycle.registry.whoami()
    model = lifecycle.registry.sealed(name, number)
    version = model.version(number)
    if model.holder(stage) == number:
        return _there_already(lifecycle, model, version, approver, "promote", stage, alias)
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
        return _there_already(lifecycle, model, model.version(holder), approver, "rollback", stage, alias)
    tenures = history.stage_tenures(model.history().events, stage)
    target = to or history.before(tenures, existing=model.versions)
    if not target:
        raise LifecycleError(
            f'no other version of "{name}" was in Production before version {holder}, as far as the server '
            "has recorded; name one with --to, or archive this one"
        )
    if to and to not in {tenure.version for tenure in tenures}:
        raise LifecycleError(f"version {to} was never in Production: promote it instead")
    model = lifecycle.registry.sealed(name, target)
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


def record(registry: Registry, name: str, number: str) -> SealTag | None:
    """Wait until the server has sealed a version; None if it seals it only with its first promotion.

    Raises:
        LifecycleError: it cannot be sealed, or the server seals nothing.
    """
    version = registry.sealed(name, number).version(number)
    try:
        seal = SealTag.of(version.tags)
    except ValueError as error:
        raise LifecycleError(f"version {number} has a seal that cannot be read: {error}") from error
    if seal is None and not registry.seals():
        raise LifecycleError(f"version {number} is not sealed: this server seals nothing")
    return seal


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
        _, findings = self._judge()
        return self._outcome(findings, changed=False, notes=("dry run: nothing was changed", *self._notes()))

    def made(self) -> Outcome:
        facts, findings = self._judge()
        name, number = self.model.name, self.version.number
        registry = self.lifecycle.registry
        decided = decision.of(
            self.action,
            policy=self.lifecycle.policy,
            findings=findings,
            figures={each.name: facts.candidate.metrics[each.name] for each in self.transition.metrics},
            compared_with=self.holder or None,
            ci=ci.run_of(self.lifecycle.environ),
        )
        try:
            registry.move(
                name,
                number,
                self.stage,
                archive_existing=self.stage != "Archived",
                holder=self.holder,
                decision=decided.document(),
            )
        except ChangedMeanwhileError:
            model = registry.model(name)
            event = history.last_move(model.history().events, number, self.stage)
            # MLflow's client sends a request again if its answer was lost: then the winner is us.
            ours = self._mine(event) and event is not None and event.decision == decided
            if not (ours and model.holder(self.stage) == number):
                raise self._lost(model) from None
        notes = (*self._align(), *self._notes())
        model = registry.model(name)
        if facts.sealed_next and evidence.TAG not in model.version(number).tags:
            raise LifecycleError(f"version {number} is in {self.stage}, but the server has not sealed it")
        event = history.last_move(model.history().events, number, self.stage)
        return self._outcome(findings, changed=True, notes=notes, decided=decided, event=event)

    def _judge(self) -> tuple[Facts, tuple[Finding, ...]]:
        facts = _facts(self)
        findings = evaluate(self.transition, facts)
        if not all(finding.passed for finding in findings):
            raise RefusedByPolicyError(f"to {self._intent()}", findings)
        return facts, findings

    def _mine(self, event: Event | None) -> bool:
        return event is not None and self.approver is not None and event.principal == self.approver.principal

    def _notes(self) -> tuple[str, ...]:
        broken = tuple(f"the server's record is not whole: {each}" for each in self.model.history().problems)
        if self.lifecycle.registry.guarded:
            return broken
        return (*broken, "not sealed: this server seals nothing, so the files may change", "not recorded")

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
            event = history.last_move(model.history().events, holder, self.stage)
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
        notes: tuple[str, ...],
        decided: Decision | None = None,
        event: Event | None = None,
    ) -> Outcome:
        return Outcome(
            self.action,
            self.model.name,
            self.version.number,
            self.stage,
            self.alias,
            changed,
            self.holder or "",
            findings,
            decided,
            event.number if event else None,
            event.seal if event else "",
            notes,
        )


def _there_already(
    lifecycle: Lifecycle,
    model: Model,
    version: Version,
    approver: Approver | None,
    action: str,
    stage: str,
    alias: str,
) -> Outcome:
    """Bring the aliases into step, which an interrupted run of ours may have left undone."""
    move = _Move(lifecycle, model, version, Transition(), approver, action, stage, alias, None)
    mine = move._mine(history.last_move(model.history().events, version.number, stage))
    notes = (f"version {version.number} is in {stage} already", *(move._align() if mine else ()))
    return Outcome(action, model.name, version.number, stage, alias, changed=False, notes=notes)


def _facts(move: _Move) -> Facts:
    registry, version = move.lifecycle.registry, move.version
    run = registry.run(version.run_id) if version.run_id else None
    holder = move.holder if move.holder in move.model.versions else None
    current = move.model.version(holder) if move.transition.metrics and holder else None
    integrity = None
    if move.transition.manifest and registry.guarded:
        integrity = registry.integrity(move.model, version.number, move.lifecycle.s3)
    makers = {
        version.tags.get(history.PRINCIPAL, ""),
        run.data.tags.get(history.PRINCIPAL, "") if run else "",
    }
    wanted = registry.artifacts(version.run_id) if move.transition.evidence else ()
    return Facts(
        candidate=_figures(version, run),
        stage=version.stage,
        current=_figures(current, registry.run(current.run_id) if current.run_id else None)
        if current
        else None,
        approver=move.approver,
        makers=frozenset(makers - {""}),
        artifacts=frozenset(entry.path for entry in wanted),
        integrity=integrity,
        sealed_next=integrity is not None and integrity.verdict == "not sealed" and registry.seals(),
    )


def _figures(version: Version, run: Any) -> Figures:
    if run is None:
        return Figures(version.number, {})
    inputs = run.inputs.dataset_inputs if run.inputs else []
    contexts = {each.dataset.digest: {tag.value for tag in each.tags} for each in inputs}
    evaluated = {digest for digest, values in contexts.items() if values & _EVALUATION}
    return Figures(version.number, dict(run.data.metrics), frozenset(evaluated or contexts))
