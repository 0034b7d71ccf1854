"""A decision as metadata of the model version: what was decided, by which rules, on which figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from model_lifecycle.history import Event
from model_lifecycle.policy import LoadedPolicy
from model_lifecycle.rules import Approver, Finding

PREFIX = "lifecycle.decision."
_SCHEMA = 1


@dataclass(frozen=True)
class Decision:
    """One decision. `event` names the server's own history tag that proves it was carried out."""

    action: str
    version: str
    stage: str
    alias: str
    compared_with: str
    at: str
    event: str
    principal: str
    role: str
    policy: Mapping[str, Any]
    rules: Sequence[Mapping[str, Any]]
    manifest_sha256: str
    ci: Mapping[str, str] | None
    schema: int = _SCHEMA

    @property
    def tag(self) -> tuple[str, str]:
        """The tag that holds it. Its key ends like the server's history tag, so it is written only once."""
        return f"{PREFIX}{self.event}", json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_tag(cls, value: str) -> Self:
        """The inverse of `tag`."""
        return cls(**json.loads(value))

    def is_confirmed_by(self, event: Event | None) -> bool:
        """Whether the server recorded the same move, by the same principal.

        A decision is a tag that a contributor could write; the server's history is not.
        """
        return (
            event is not None
            and event.identifier == self.event
            and event.principal == self.principal
            and event.version == self.version
            and event.stage == self.stage
        )


def of(
    action: str,
    *,
    event: Event,
    policy: LoadedPolicy,
    findings: Sequence[Finding],
    approver: Approver | None,
    compared_with: str,
    alias: str,
    manifest_sha256: str,
    ci: Mapping[str, str] | None,
) -> Decision:
    """The decision that led to a move the server has recorded."""
    return Decision(
        action=action,
        version=event.version,
        stage=event.stage,
        alias=alias,
        compared_with=compared_with,
        at=event.at.isoformat(),
        event=event.identifier,
        principal=event.principal,
        role=approver.role if approver else "",
        policy={"file": policy.file, "version": policy.policy.version, "sha256": policy.sha256},
        rules=[finding.as_dict() for finding in findings],
        manifest_sha256=manifest_sha256,
        ci=ci,
    )


def decisions(tags: Mapping[str, str]) -> tuple[Decision, ...]:
    """The decisions in a version's tags, oldest first; tags that are none of ours are passed over."""
    found = []
    for key in sorted(tags):
        if key.startswith(PREFIX):
            try:
                found.append(Decision.from_tag(tags[key]))
            except (ValueError, TypeError):
                continue
    return tuple(found)
