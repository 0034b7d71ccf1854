"""What can come out of a step, and out of a whole smoke run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StepFailed(Exception):  # noqa: N818 - the name is what the user reads
    """The deployment was reached and did not do what the step expects: exit code 1."""

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
    """This run was not given what the step takes: it is skipped, and the output says so."""

    def __init__(self, seen: str, *, next_action: str) -> None:
        super().__init__(seen)
        self.seen = seen
        self.next_action = next_action


class Status(StrEnum):
    """How one step ended. The values are those of the JSON report, and stable."""

    PASSED = "passed"
    FAILED = "broken"
    COULD_NOT_RUN = "could not run"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"
    KEPT = "kept"

    @property
    def words(self) -> str:
        """The status for people."""
        return self.name.replace("_", " ").lower()


@dataclass(frozen=True)
class Result:
    """One step's outcome. `observed` is the evidence when it passed, the reason when it was skipped."""

    name: str
    title: str
    status: Status
    seconds: float
    observed: str = ""
    seen: str = ""
    next_action: str = ""


def exit_code(results: list[Result], *, require_all: bool = False) -> int:
    """0: every step that ran passed; 1: a step failed; 2: the run could not be completed.

    A failed step outweighs an interruption: it has been seen. With `require_all`, a skipped step makes the
    run incomplete.
    """
    statuses = {result.status for result in results}
    if Status.FAILED in statuses:
        return 1
    incomplete = {Status.COULD_NOT_RUN, Status.INTERRUPTED}
    if require_all:
        incomplete.add(Status.SKIPPED)
    if not results or statuses & incomplete:
        return 2
    return 0
