from __future__ import annotations

from collections.abc import Callable

import pytest

from client_smoke.runner import run
from client_smoke.smoke import Smoke, Step
from client_smoke.verdict import CannotRun, NotTried, Result, Status, StepFailed, exit_code

Offline = Callable[..., Smoke]


class Recorder:
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[Result] = []

    def begin(self, step: Step) -> None:
        self.begun.append(step.name)

    def end(self, result: Result) -> None:
        self.ended.append(result)


def holds(smoke: Smoke) -> str:
    smoke.made_something = True
    return "seen"


def breaks(smoke: Smoke) -> str:
    raise StepFailed("something else", next_action="repair it")


def depends(smoke: Smoke) -> str:
    return "reached"


def depends_further(smoke: Smoke) -> str:
    return "reached"


def cannot(smoke: Smoke) -> str:
    raise CannotRun("no way", next_action="open it")


def lacks(smoke: Smoke) -> str:
    raise NotTried("no token", next_action="pass one")


def is_interrupted(smoke: Smoke) -> str:
    raise KeyboardInterrupt


def cleans(smoke: Smoke) -> str:
    return "cleaned"


CLEANUP = Step(cleans, "it is clean")


def try_steps(smoke: Smoke, *steps: Step, keep: bool = False, cleanup: Step = CLEANUP) -> dict[str, Result]:
    results = run(smoke, steps=steps, cleanup=cleanup, keep=keep, display=Recorder())
    return {result.name: result for result in results}


def test_every_step_is_tried_and_shown_in_order(offline: Offline) -> None:
    recorder = Recorder()
    steps = (Step(holds, "one"), Step(depends, "two", needs=(holds,)))
    results = run(offline(), steps=steps, cleanup=CLEANUP, keep=False, display=recorder)
    assert recorder.begun == ["holds", "depends", "cleans"]
    assert recorder.ended == results
    assert [result.status for result in results] == [Status.PASSED] * 3
    assert results[0].observed == "seen"
    assert exit_code(results) == 0


def test_failed_step_is_reported_and_only_dependent_steps_are_left_out(offline: Offline) -> None:
    results = try_steps(
        offline(),
        Step(breaks, "it holds"),
        Step(depends, "two", needs=(breaks,)),
        Step(depends_further, "three", needs=(depends,)),
        Step(holds, "independent"),
    )
    assert (results["breaks"].seen, results["breaks"].next_action) == ("something else", "repair it")
    assert results["depends"].status is Status.SKIPPED
    assert results["depends"].observed == "needs: it holds"
    assert results["depends_further"].observed == "needs: two"
    assert results["holds"].status is Status.PASSED
    assert results["cleans"].status is Status.PASSED
    assert exit_code(list(results.values())) == 1


def test_run_that_cannot_go_on_skips_everything_but_the_clean_up(offline: Offline) -> None:
    results = try_steps(offline(), Step(holds, "one"), Step(cannot, "two"), Step(depends, "three"))
    assert results["cannot"].status is Status.COULD_NOT_RUN
    assert results["depends"].status is Status.SKIPPED
    assert results["cleans"].status is Status.PASSED
    assert exit_code(list(results.values())) == 2


def test_interrupted_run_skips_everything_but_the_clean_up(offline: Offline) -> None:
    results = try_steps(offline(), Step(holds, "one"), Step(is_interrupted, "two"), Step(depends, "three"))
    assert results["is_interrupted"].status is Status.INTERRUPTED
    assert results["depends"].observed == "interrupted"
    assert results["cleans"].status is Status.PASSED
    assert exit_code(list(results.values())) == 2


def test_interruption_between_two_steps_cleans_up_as_well(offline: Offline) -> None:
    class Interrupting(Recorder):
        def end(self, result: Result) -> None:
            super().end(result)
            if result.name == "holds":
                raise KeyboardInterrupt

    steps = (Step(holds, "one"), Step(depends, "two"))
    results = run(offline(), steps=steps, cleanup=CLEANUP, keep=False, display=Interrupting())
    assert [result.name for result in results] == ["holds", "depends", "whole_run", "cleans"]
    assert results[-1].status is Status.PASSED
    assert exit_code(results) == 2


def test_interruption_that_a_library_swallowed_counts(offline: Offline) -> None:
    answers = iter([False, True])
    steps = (Step(holds, "one"), Step(depends, "two"))
    recorder = Recorder()
    results = run(
        offline(),
        steps=steps,
        cleanup=CLEANUP,
        keep=False,
        display=recorder,
        interrupted=lambda: next(answers),
    )
    assert [str(result.status) for result in results] == ["passed", "skipped", "interrupted", "passed"]
    assert recorder.ended == results


def test_interrupted_clean_up_says_what_remains(offline: Offline) -> None:
    smoke = offline()
    results = try_steps(smoke, Step(holds, "one"), cleanup=Step(is_interrupted, "it is clean"))
    assert results["is_interrupted"].status is Status.INTERRUPTED
    assert smoke.experiment_name in smoke.remains[0]
    assert exit_code(list(results.values())) == 2


def test_broken_clean_up_breaks_the_run(offline: Offline) -> None:
    results = try_steps(offline(), Step(holds, "one"), cleanup=Step(breaks, "it is clean"))
    assert exit_code(list(results.values())) == 1


def test_keep_leaves_everything_and_names_it(offline: Offline) -> None:
    smoke = offline()
    results = try_steps(smoke, Step(holds, "one"), keep=True)
    assert results["cleans"].status is Status.KEPT
    assert smoke.experiment_name in results["cleans"].observed
    assert exit_code(list(results.values())) == 0


def test_nothing_is_cleaned_when_nothing_was_made(offline: Offline) -> None:
    results = try_steps(offline(), Step(depends, "one"))
    assert results["cleans"].status is Status.SKIPPED
    assert results["cleans"].observed == "nothing was made"


def test_unexpected_error_is_put_into_words_and_handed_to_debug(offline: Offline) -> None:
    def fails(smoke: Smoke) -> str:
        raise OSError("the disk is full")

    seen: list[Exception] = []
    results = run(
        offline(),
        steps=(Step(fails, "one"),),
        cleanup=CLEANUP,
        keep=False,
        display=Recorder(),
        on_error=seen.append,
    )
    assert results[0].status is Status.FAILED
    assert "the disk is full" in results[0].seen
    assert [str(error) for error in seen] == ["the disk is full"]


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([], 2),
        ([Status.PASSED, Status.KEPT], 0),
        ([Status.PASSED, Status.FAILED, Status.SKIPPED], 1),
        ([Status.FAILED, Status.INTERRUPTED], 1),
        ([Status.COULD_NOT_RUN, Status.SKIPPED], 2),
        ([Status.INTERRUPTED], 2),
    ],
)
def test_exit_code_follows_the_worst_result(statuses: list[Status], code: int) -> None:
    assert exit_code([Result("n", "p", status, 0.0) for status in statuses]) == code


def test_step_that_cannot_be_tried_is_skipped_with_what_to_pass(offline: Offline) -> None:
    results = try_steps(offline(), Step(holds, "one"), Step(lacks, "two"), Step(depends, "3", needs=(lacks,)))
    assert results["lacks"].status is Status.SKIPPED
    assert (results["lacks"].observed, results["lacks"].next_action) == ("no token", "pass one")
    assert results["depends"].observed == "needs: two"
    assert exit_code(list(results.values())) == 0


def test_all_can_be_required(offline: Offline) -> None:
    results = list(try_steps(offline(), Step(holds, "one"), Step(lacks, "two")).values())
    assert exit_code(results, require_all=True) == 2
    kept = list(try_steps(offline(), Step(holds, "one")).values())
    assert exit_code(kept, require_all=True) == 0


def test_failed_step_outweighs_a_skipped_one(offline: Offline) -> None:
    results = list(try_steps(offline(), Step(breaks, "one"), Step(lacks, "two")).values())
    assert exit_code(results, require_all=True) == 1
