"""Rounds of requests until the time is over. Not collected: `python -m tests.fuzz` runs it."""

from __future__ import annotations

import itertools
import json
import time

import pytest

from tests.fuzz.report import RESULTS
from tests.fuzz.runner import Fuzz

_EXAMPLES = 6


@pytest.mark.timeout(0)
def test_long_run(fuzz: Fuzz, order: dict[str, float], capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    until = began + 60 * order["minutes"]
    for number in itertools.count(int(order["seed"])):
        fuzz.round(number, examples=_EXAMPLES, until=until)
        if time.monotonic() >= until:
            break
    fuzz.end()
    with capsys.disabled():
        print("\n".join(fuzz.findings))
    assert not fuzz.findings
    RESULTS.write_text(
        json.dumps(
            {
                "minutes": round((time.monotonic() - began) / 60, 1),
                "seeds": [fuzz.seeds[0], fuzz.seeds[-1]],
                "examples": _EXAMPLES,
                "peak_mib": fuzz.peak // 2**20,
                "changes": fuzz.world.changes.total(),
                "unexplained": len(fuzz.findings),
                "explained": dict(sorted(fuzz.explained.items())),
                "routes": {route: dict(sorted(seen.items())) for route, seen in sorted(fuzz.counts.items())},
            },
            indent=1,
        )
        + "\n"
    )
