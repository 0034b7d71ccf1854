"""`python -m tests.fuzz --minutes 7 --seed 1`: a long run; keeps its results, and writes docs/fuzz.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from tests.fuzz.report import DOCUMENT, as_markdown


class _Order:
    def __init__(self, minutes: float, seed: int) -> None:
        self._order = {"minutes": minutes, "seed": seed}

    @pytest.fixture
    def order(self) -> dict[str, float]:
        return self._order


def main() -> int:
    """Run, and write the document if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    run = Path(__file__).with_name("long_run.py")
    failed = pytest.main(["-q", str(run)], plugins=[_Order(asked.minutes, asked.seed)])
    if not failed:
        DOCUMENT.write_text(as_markdown())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
