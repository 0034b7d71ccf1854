from __future__ import annotations

from pathlib import Path

from client_smoke.steps import CLEANUP, STEPS

_DOCUMENT = Path(__file__).parents[2] / "docs" / "smoke.md"


def test_every_step_has_a_name_and_a_title_of_its_own() -> None:
    every = (*STEPS, CLEANUP)
    assert len({step.name for step in every}) == len(every)
    assert len({step.title for step in every}) == len(every)


def test_step_needs_only_steps_before_it() -> None:
    for position, step in enumerate(STEPS):
        assert set(step.needs) <= {earlier.run for earlier in STEPS[:position]}


def test_every_step_is_documented() -> None:
    text = _DOCUMENT.read_text()
    assert [step.title for step in (*STEPS, CLEANUP) if step.title not in text] == []
