"""What can come out of a step, and out of a whole smoke run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PromiseBroken(Exception):  # noqa: N818 - the name is what the user reads
    """The deployment was reached and did not do what it promises: exit code 1."""

    def __init__(self, seen: str, *, next_action: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.next_action = next_action


class CannotRun(Exception):  # noqa: N818 - the name is what the user reads
    """Nothing can be said about the deployment until the caller changes something: exit code 2."""

    def __init__(self, seen: str, *, next_action: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.next_action = next_action


class NotTried(Exception):  # noqa: N818 - the name is what the user reads
    """This run was not given what it takes to try a promise: skipped, and said so."""

    def __init__(self, seen: str, *, next_action: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.next_action = next_action


class Status(StrEnum):
    """How one step ended."""

    PASSED = "passed"
    BROKEN = "broken"
    COULD_NOT_RUN = "could not run"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"
    KEPT = "kept"


@dataclass(frozen=True)
class Result:
    """One step's outcome. `observed` is the evidence when it passed, the reason when it was skipped."""

    name: str
    promise: str
    status: Status
    seconds: float
    observed: str = ""
    seen: str = ""
    next_action: str = ""


def exit_code(results: list[Result], *, require_all: bool = False) -> int:
    """0: every promise that was tried was kept; 1: one broke; 2: the run could not be completed.

    A broken promise outweighs an interruption: it has been seen. With `require_all`, a promise that was not
    tried makes the run incomplete.
    """
    statuses = {result.status for result in results}
    if Status.BROKEN in statuses:
        return 1
    incomplete = {Status.COULD_NOT_RUN, Status.INTERRUPTED}
    if require_all:
        incomplete.add(Status.SKIPPED)
    if not results or statuses & incomplete:
        return 2
    return 0
