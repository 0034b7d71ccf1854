"""Text of clients cannot steer a terminal."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_lifecycle.terminal import plain


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x9b31m", "a\rb", "a\nb", "\x07", "\x7f", "\u202e", "\u2066", "\u200b", "\ud800"]
)
def test_what_moves_the_cursor_or_hides_text_is_written_out(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(text) != text


def test_other_text_stays_as_it_is() -> None:
    assert plain("Müller, 木, ✓ · 0.85") == "Müller, 木, ✓ · 0.85"


def test_long_text_is_cut_and_says_how_long_it_was() -> None:
    assert plain("x" * 1_000_000) == "x" * 500 + "… (1,000,000 characters)"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text())
def test_every_text_becomes_one_printable_line(text: str) -> None:
    assert plain(text).isprintable()
