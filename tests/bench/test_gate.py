"""The benchmark of the gate measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import gate


async def test_every_kind_of_request_passes_the_gate() -> None:
    costs = await gate.measure(rounds=3)
    assert [cost.name for cost in costs] == ["read", "write, audited", "read, token never seen before"]
    assert all(cost.with_gate > 0 and cost.without > 0 for cost in costs)


def test_figures_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate.main(["--rounds", "3", "--json", str(tmp_path / "gate.json")])
    assert "write, audited" in capsys.readouterr().out
    written = json.loads((tmp_path / "gate.json").read_text())
    assert written[0]["added"] == pytest.approx(written[0]["with_gate"] - written[0]["without"])
