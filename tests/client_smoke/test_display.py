from __future__ import annotations

import io

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
BROKEN = Result("b_step", "it holds, too", Status.BROKEN, 0.5, seen="a problem", next_action="repair it")


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


def test_closing_words_name_promise_sight_and_next_action() -> None:
    words = closing_words(
        [PASSED, BROKEN], url="https://mlflow.example.com", seconds=2.0, remains=["an experiment"], code=1
    )
    assert words.splitlines() == [
        "promise broken: it holds, too",
        "  seen: a problem",
        "  next: repair it",
        "",
        "remains: an experiment",
        "https://mlflow.example.com breaks a promise (1 of 2 in 2.0 s)",
    ]
