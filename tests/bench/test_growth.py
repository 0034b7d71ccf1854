from __future__ import annotations

import pytest

from bench.growth import fill, stages


@pytest.mark.parametrize(
    ("most", "expected"),
    [(1_000, [1_000]), (100_000, [1_000, 10_000, 100_000]), (250_000, [1_000, 10_000, 100_000, 250_000])],
)
def test_growth_goes_in_tenfold_steps_to_the_size_asked_for(most: int, expected: list[int]) -> None:
    assert stages(most) == expected


def test_growth_to_less_than_its_first_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="999"):
        stages(999)


def test_numbers_of_runs_are_bigint_so_that_times_do_not_overflow() -> None:
    assert all("1::bigint" in each for each in fill(1, 1_000_000) if "generate_series" in each)
