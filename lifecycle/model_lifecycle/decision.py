"""A decision: by which policy and rules, and on which figures.

It goes with the change that it leads to, and the server keeps it in its own record of that change, after it
has compared the figures with its database. What clients once wrote beside it is a claim, and judges nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from model_lifecycle.errors import LifecycleError
from model_lifecycle.policy import LoadedPolicy
from model_lifecycle.rules import Finding

# The server takes 64 KiB; long observations are shortened first.
_LARGEST = 64 * 1024
_SHORTER = (1000, 200, 50)
_CLAIM, _OLD_MANIFEST = "lifecycle.decision.", "lifecycle.manifest"
_MOST_CLAIMS = 50

Text = Annotated[str, Field(max_length=10_000)]


def number_of(value: object) -> object:
    """A figure as JSON has it: what is no finite number is a string there."""
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def json_number(value: Any) -> Any:
    """The inverse of `number_of`."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class DecidedRule(_Part):
    """One rule as it was judged."""

    rule: Text
    passed: bool
    observed: Text
    required: Text
    figures: Mapping[Text, Any] = Field(default_factory=dict)


class DecidingPolicy(_Part):
    """The policy file as it was."""

    file: Text
    version: int | Text
    sha256: Text


class Decision(_Part):
    """What led to a change."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    action: Text
    policy: DecidingPolicy
    rules: Annotated[Sequence[DecidedRule], Field(max_length=1000)]
    compared_with: Text | None = None
    figures: Mapping[Text, Annotated[float, BeforeValidator(number_of)]] = Field(default_factory=dict)
    ci: Mapping[Text, Text] | None = None

    def document(self) -> dict[str, Any]:
        """The decision as the server takes and keeps it."""
        raw = self.model_dump(by_alias=True)
        raw["figures"] = {name: json_number(value) for name, value in self.figures.items()}
        return raw


class ClaimedDecision(Decision):
    """A decision as clients wrote it into a tag, before the server kept them."""

    stage: Text = ""
    at: Text = ""
    principal: Text = ""


@dataclass(frozen=True)
class Claim:
    """A tag that a client wrote. `decision` is None if it holds none that can be read."""

    tag: str
    decision: ClaimedDecision | None


def of(
    action: str,
    *,
    policy: LoadedPolicy,
    findings: Sequence[Finding],
    figures: Mapping[str, float],
    compared_with: str | None,
    ci: Mapping[str, str] | None,
) -> Decision:
    """The decision to ask the server for a change.

    Raises:
        LifecycleError: it does not fit the server's 64 KiB.
    """
    for limit in _SHORTER:
        made = Decision(
            action=action,
            policy=DecidingPolicy(file=policy.file, version=policy.policy.version, sha256=policy.sha256),
            rules=[_shortened(finding, limit) for finding in findings],
            compared_with=compared_with,
            figures=figures,
            ci=ci and {name: value[:limit] for name, value in ci.items()},
        )
        if len(json.dumps(made.document())) <= _LARGEST:
            return made
    raise LifecycleError(f"{policy.file}: has too many rules for one decision; judge fewer metrics")


def decision_of(raw: object) -> Decision | None:
    """The decision in an entry of the server's history; None if there is none that can be read."""
    try:
        return Decision.model_validate_json(json.dumps(raw)) if raw else None
    except (ValidationError, ValueError, RecursionError):
        return None


def claims(tags: Mapping[str, str]) -> tuple[Claim, ...]:
    """The decisions and manifests that clients wrote into a version's tags, oldest first."""
    keys = sorted(key for key in tags if key.startswith((_CLAIM, _OLD_MANIFEST)))
    return tuple(Claim(key, _claimed(tags[key])) for key in keys[:_MOST_CLAIMS])


def _claimed(value: str) -> ClaimedDecision | None:
    try:
        return ClaimedDecision.model_validate_json(value)
    except ValidationError:
        return None


def _shortened(finding: Finding, limit: int) -> DecidedRule:
    def short(text: str) -> str:
        return text if len(text) <= limit else f"{text[:limit]}…"

    return DecidedRule(
        rule=short(finding.rule),
        passed=finding.passed,
        observed=short(finding.observed),
        required=short(finding.required),
        figures={name: json_number(value) for name, value in finding.figures.items()},
    )
