"""What can keep a command from being done; each kind has its own exit code."""

from __future__ import annotations

from typing import Any, ClassVar


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


class NotPermittedError(LifecycleError):
    """The server knows the caller and refuses; nothing was changed."""

    exit_code = 4
    kind = "refused by the server"


class ConflictError(LifecycleError):
    """Somebody else was first, or what was judged has changed; nothing was changed by this command."""

    exit_code = 5
    kind = "conflict"
