"""Does a version keep the policy? Pure: facts in, one finding for each rule out, broken or kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from model_lifecycle.errors import LifecycleError
from model_lifecycle.evidence import Integrity
from model_lifecycle.policy import Approvers, Archival, Metric, Transition, matches


@dataclass(frozen=True)
class Approver:
    """Who asks for the move, as the server has verified it."""

    principal: str
    role: str
    lane: str


@dataclass(frozen=True)
class Figures:
    """What a version's run has measured, and on what data (digests of its evaluation data sets)."""

    version: str
    metrics: Mapping[str, float]
    datasets: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Facts:
    """All that rules look at.

    `integrity` is what S3 said of the sealed files, or None at a server that seals nothing (`--unguarded`);
    `sealed_next`: the server seals the version before it moves.
    """

    candidate: Figures
    stage: str
    current: Figures | None
    approver: Approver | None
    makers: frozenset[str] = frozenset()
    artifacts: frozenset[str] = frozenset()
    integrity: Integrity | None = None
    sealed_next: bool = False


@dataclass(frozen=True)
class Finding:
    """One rule, what it requires and what was seen."""

    rule: str
    passed: bool
    observed: str
    required: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The finding for machines; keys are stable."""
        return {**asdict(self), "figures": dict(self.figures)}


class RefusedByPolicyError(LifecycleError):
    """The policy refuses it; nothing was changed. `findings` holds every rule, kept and broken."""

    exit_code = 3
    kind = "refused by policy"

    def __init__(self, what: str, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        broken = [finding for finding in self.findings if not finding.passed]
        rules = "rule" if len(broken) == 1 else "rules"
        super().__init__(
            f"{what} is refused: {len(broken)} of {len(self.findings)} {rules} failed; nothing was changed"
        )

    def as_dict(self) -> dict[str, Any]:
        """The error for machines, with every rule."""
        return {**super().as_dict(), "rules": [finding.as_dict() for finding in self.findings]}


def evaluate(transition: Transition, facts: Facts) -> tuple[Finding, ...]:
    """Judge every rule of a transition; never stops at the first that fails."""
    return tuple(_findings(transition, facts))


def _findings(transition: Transition, facts: Facts) -> Iterator[Finding]:
    if transition.from_stages:
        yield Finding(
            "comes from",
            facts.stage in transition.from_stages,
            f"version {facts.candidate.version} is in stage {facts.stage}",
            f"stage {' or '.join(transition.from_stages)}",
        )
    if isinstance(transition, Archival) and not transition.live:
        yield Finding(
            "is not live",
            facts.stage != "Production",
            f"version {facts.candidate.version} is in stage {facts.stage}",
            "a stage other than Production: promote another version or roll back first",
        )
    for metric in transition.metrics:
        yield from _of_metric(metric, facts, same_dataset=transition.same_dataset)
    for pattern in transition.evidence:
        found = sorted(path for path in facts.artifacts if fnmatchcase(path, pattern))
        yield Finding(
            f"evidence {pattern}",
            bool(found),
            ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
            if found
            else "the run has no such artifact",
            f"an artifact {pattern} in the run",
        )
    if transition.manifest and facts.integrity is not None:
        yield _of_artifacts(facts.integrity, sealed_next=facts.sealed_next)
    yield from _of_approvers(transition.approvers, facts)


def _of_metric(metric: Metric, facts: Facts, *, same_dataset: bool) -> Iterator[Finding]:
    value = facts.candidate.metrics.get(metric.name)
    if metric.minimum is not None:
        yield _bound(metric, value, ">=", metric.minimum)
    if metric.maximum is not None:
        yield _bound(metric, value, "<=", metric.maximum)
    if metric.no_worse_than_current_by is not None:
        yield _compared(metric, value, facts, same_dataset=same_dataset)


def _bound(metric: Metric, value: float | None, sign: str, bound: float) -> Finding:
    # A comparison with NaN is false: a figure that is no number keeps no bound.
    kept = value is not None and (value >= bound if sign == ">=" else value <= bound)
    return Finding(
        f"{metric.name} {'minimum' if sign == '>=' else 'maximum'}",
        kept,
        _number(value),
        f"{sign} {_number(bound)}",
        {"metric": metric.name, "candidate": value, "threshold": bound},
    )


def _compared(metric: Metric, value: float | None, facts: Facts, *, same_dataset: bool) -> Finding:
    rule, tolerance = f"{metric.name} against current", metric.no_worse_than_current_by or 0.0
    if facts.current is None or facts.current.version == facts.candidate.version:
        return Finding(
            rule, value is not None, _number(value), "a value; there is no current version to compare with"
        )
    current = facts.current.metrics.get(metric.name)
    who = f"version {facts.current.version}"
    figures = {
        "metric": metric.name,
        "candidate": value,
        "current": current,
        "current_version": facts.current.version,
        "tolerance": tolerance,
    }
    if current is None:
        return Finding(
            rule, False, f"{who} has no {metric.name}", f"a value of {who} to compare with", figures
        )
    if same_dataset and not (facts.candidate.datasets & facts.current.datasets):
        return Finding(
            rule,
            False,
            f"measured on {_digests(facts.candidate)}, {who} on {_digests(facts.current)}",
            "the same evaluation data for both",
            figures,
        )
    bound = current - tolerance if metric.direction == "higher" else current + tolerance
    kept = value is not None and (value >= bound if metric.direction == "higher" else value <= bound)
    sign = ">=" if metric.direction == "higher" else "<="
    return Finding(
        rule,
        kept,
        _number(value),
        f"{sign} {_number(bound)} ({who}: {_number(current)}, may be {_number(tolerance)} worse)",
        {**figures, "threshold": bound},
    )


def _of_artifacts(integrity: Integrity, *, sealed_next: bool) -> Finding:
    kept, observed = integrity.verdict == "intact", integrity.note
    if integrity.verdict == "not sealed" and sealed_next:
        kept, observed = True, "not sealed yet; the server seals it before it moves"
    return Finding(
        "sealed and unchanged",
        kept,
        "; ".join((observed, *map(str, integrity.damage))),
        "sealed by the server, and every file in S3 as it was sealed",
    )


def _of_approvers(approvers: Approvers, facts: Facts) -> Iterator[Finding]:
    approver = facts.approver
    who = f"{approver.principal} ({approver.role})" if approver else "the server does not say who asks"
    if approvers.principals or approvers.roles:
        kept = approver is not None and (
            approver.role in approvers.roles
            or any(matches(each, approver.principal) for each in approvers.principals)
        )
        required = [*(f"role {role}" for role in approvers.roles), *approvers.principals]
        yield Finding("approver", kept, who, " or ".join(required))
    if approvers.other_than_trainer:
        kept = approver is not None and bool(facts.makers) and approver.principal not in facts.makers
        made = ", ".join(sorted(facts.makers)) or "unknown: the server has not recorded it"
        yield Finding(
            "four eyes", kept, f"{who}; trained or registered by {made}", "somebody else than its maker"
        )


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.6g}"


def _digests(figures: Figures) -> str:
    return ", ".join(sorted(figures.datasets)) or "unrecorded data"
