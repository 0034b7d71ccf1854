"""What can keep a command from being done; each kind has its own exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from model_lifecycle.rules import Finding


class LifecycleError(Exception):
    """It failed; nothing is known to be wrong with the model. The message says what to do."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "failed"

    def as_dict(self) -> dict[str, Any]:
        """The error for machines; keys are stable."""
        return {"outcome": self.kind, "exit_code": self.exit_code, "message": str(self)}


class PolicyError(LifecycleError):
    """The policy file cannot be used; the message names file, key, value and remedy."""

    exit_code = 2
    kind = "invalid policy"


class RefusedError(LifecycleError):
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


class NotPermittedError(LifecycleError):
    """The server knows the caller and refuses; nothing was changed."""

    exit_code = 4
    kind = "refused by the server"


class ConflictError(LifecycleError):
    """Somebody else was first; nothing was changed by this command."""

    exit_code = 5
    kind = "conflict"


class TamperedError(LifecycleError):
    """An artifact is not what was recorded; raised by nothing but the command line, after its report."""

    exit_code = 6
    kind = "tampered"
