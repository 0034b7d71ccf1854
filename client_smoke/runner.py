"""Runs the steps in order, leaves out what cannot hold, and always cleans up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from client_smoke.cleanup import what_is_kept
from client_smoke.explain import explain
from client_smoke.smoke import Smoke, Step
from client_smoke.verdict import CannotRun, NotTried, Result, Status, StepFailed

_INTERRUPTED = "interrupted"


class Display(Protocol):
    """Shows a run while it happens."""

    def begin(self, step: Step) -> None:
        """A step starts."""

    def end(self, result: Result) -> None:
        """A step ended or was left out."""


def run(
    smoke: Smoke,
    *,
    steps: Sequence[Step],
    cleanup: Step,
    keep: bool,
    display: Display,
    on_error: Callable[[Exception], None] = lambda _error: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[Result]:
    """Try every step and return one result for each, the clean-up's last.

    `KeyboardInterrupt` ends the step at hand and skips the rest; the clean-up still runs, and only a second
    one ends that. `interrupted` says whether there was one that a library swallowed. `on_error` sees each
    exception before it is put into words.
    """
    results: list[Result] = []
    try:
        _try_all(smoke, steps, results, display=display, on_error=on_error, interrupted=interrupted)
    except KeyboardInterrupt:  # between two steps, or while one was being shown
        rest = [_skipped(step, _INTERRUPTED) for step in steps[len(results) :]]
        for result in (*rest, _interrupted_between_steps()):
            results.append(result)
            display.end(result)
    results.append(_clean_up(smoke, cleanup, keep=keep, display=display, on_error=on_error))
    return results


def _try_all(
    smoke: Smoke,
    steps: Sequence[Step],
    results: list[Result],
    *,
    display: Display,
    on_error: Callable[[Exception], None],
    interrupted: Callable[[], bool],
) -> None:
    passed: set[Callable[[Smoke], str]] = set()
    stopped_by = ""
    for step in steps:
        if interrupted() and not stopped_by:
            raise KeyboardInterrupt
        reason = stopped_by or _missing(step, steps, passed)
        result = _skipped(step, reason) if reason else _attempt(step, smoke, display, on_error)
        results.append(result)
        display.end(result)
        if result.status is Status.PASSED:
            passed.add(step.run)
        elif result.status is Status.COULD_NOT_RUN:
            stopped_by = "the run could not go on"
        elif result.status is Status.INTERRUPTED:
            stopped_by = _INTERRUPTED


def _skipped(step: Step, reason: str) -> Result:
    return Result(step.name, step.title, Status.SKIPPED, 0.0, observed=reason)


def _interrupted_between_steps() -> Result:
    return Result(
        "whole_run",
        "the run is completed",
        Status.INTERRUPTED,
        0.0,
        seen="interrupted between two steps",
        next_action="run again; what remains, if anything, is listed below",
    )


def _clean_up(
    smoke: Smoke, cleanup: Step, *, keep: bool, display: Display, on_error: Callable[[Exception], None]
) -> Result:
    if not smoke.made_something:
        result = _skipped(cleanup, "nothing was made")
    elif keep:
        result = Result(cleanup.name, cleanup.title, Status.KEPT, 0.0, observed=what_is_kept(smoke))
    else:
        result = _attempt(cleanup, smoke, display, on_error)
        if result.status is not Status.PASSED:
            smoke.remains.append(f"{what_is_kept(smoke)}, or part of it")
    display.end(result)
    return result


def _attempt(step: Step, smoke: Smoke, display: Display, on_error: Callable[[Exception], None]) -> Result:
    started = time.perf_counter()
    status, observed, seen, next_action = Status.PASSED, "", "", ""
    try:
        display.begin(step)
        observed = step.run(smoke)
    except KeyboardInterrupt:
        status, seen = Status.INTERRUPTED, "interrupted before it was done"
        next_action = "run again; what remains, if anything, is listed below"
    except NotTried as reason:
        status, observed, next_action = Status.SKIPPED, reason.seen, reason.next_action
    except Exception as error:
        on_error(error)
        verdict = explain(error)
        status = Status.FAILED if isinstance(verdict, StepFailed) else Status.COULD_NOT_RUN
        assert isinstance(verdict, StepFailed | CannotRun)  # noqa: S101 - for the type checker
        seen, next_action = verdict.seen, verdict.next_action
    return Result(
        step.name,
        step.title,
        status,
        time.perf_counter() - started,
        observed=observed,
        seen=seen,
        next_action=next_action,
    )


def _missing(step: Step, steps: Sequence[Step], passed: set[Callable[[Smoke], str]]) -> str:
    for other in steps:
        if other.run in step.needs and other.run not in passed:
            return f"needs: {other.title}"
    return ""
