from __future__ import annotations

import io

import pytest

from client_smoke.display import Screen, closing_words
from client_smoke.smoke import Smoke, Step
from client_smoke.verdict import Result, Status


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_step(smoke: Smoke) -> str:
    return ""


STEP = Step(a_step, "it holds")
PASSED = Result("a_step", "it holds", Status.PASSED, 1.234, observed="evidence [not markup]")
BROKEN = Result("b_step", "it holds, too", Status.FAILED, 0.5, seen="a problem", next_action="repair it")


def shown(stream: io.StringIO) -> str:
    with Screen(stream, total=2) as screen:
        screen.begin(STEP)
        screen.end(PASSED)
        screen.end(BROKEN)
    return stream.getvalue()


def test_log_gets_plain_lines_at_once_and_a_table_at_the_end() -> None:
    output = shown(io.StringIO())
    assert output.splitlines()[0] == "[ 1/2] it holds …"
    assert output.splitlines()[1].strip() == "passed in 1.23 s: evidence [not markup]"
    assert "✓  it holds" in output
    assert "\x1b" not in output


def test_terminal_gets_a_table_that_moves() -> None:
    output = shown(Terminal())
    assert "\x1b" in output
    assert "it holds" in output


def test_small_terminal_shows_the_latest_steps_and_in_the_end_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "8")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with Screen(stream, total=30) as screen:
        for number in range(30):
            screen.begin(STEP)
            screen.end(Result("n", f"step {number}.", Status.PASSED, 0.0))
        moving = stream.getvalue()
    final = stream.getvalue().removeprefix(moving)
    assert all(f"step {number}." in final for number in range(30))


def test_narrow_terminal_keeps_marks_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with Screen(stream, total=2) as screen:
        screen.end(Result("n", "a step", Status.PASSED, 1.25, observed="evidence " * 50))
    # The moving table comes first, the final one replaces it.
    line = next(line for line in stream.getvalue().splitlines() if "a step" in line)
    assert "✓" in line
    assert "1.25" in line
    assert "…" in line


def test_closing_words_name_step_sight_and_next_action() -> None:
    words = closing_words(
        [PASSED, BROKEN], url="https://mlflow.example.com", seconds=2.0, remains=["an experiment"], code=1
    )
    assert words.splitlines() == [
        "failed: it holds, too",
        "  seen: a problem",
        "  next: repair it",
        "",
        "remains: an experiment",
        "a step failed at https://mlflow.example.com (1 of 2 passed in 2.0 s)",
    ]


def test_closing_words_name_what_was_skipped_and_what_to_pass() -> None:
    skipped = Result("c", "it could hold", Status.SKIPPED, 0.0, observed="no token", next_action="pass one")
    words = closing_words(
        [PASSED, skipped], url="https://mlflow.example.com", seconds=2.0, remains=[], code=0
    )
    assert words.splitlines() == [
        "skipped: it could hold (no token; pass one)",
        "every step that ran passed at https://mlflow.example.com (1 of 2 passed, 1 skipped, in 2.0 s)",
    ]


def test_closing_words_tell_a_skipped_step_that_was_required_from_a_failed_run() -> None:
    skipped = Result("c", "it could hold", Status.SKIPPED, 0.0, observed="no token", next_action="pass one")
    words = closing_words([PASSED, skipped], url="https://x", seconds=2.0, remains=[], code=2)
    assert "every step that ran passed at https://x, but all were required" in words
