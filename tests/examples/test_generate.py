from __future__ import annotations

import pytest

from examples.credit_risk.generate import CSV, applicants, as_csv, main


def test_committed_file_is_what_the_program_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    assert CSV.read_bytes() == as_csv(applicants())


def test_other_seed_makes_other_people() -> None:
    assert as_csv(applicants(rows=5)) != as_csv(applicants(rows=5, seed=1))


def test_changed_file_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed = tmp_path_factory.mktemp("data") / "credit.csv"
    changed.write_bytes(CSV.read_bytes().replace(b"rent", b"tent", 1))
    monkeypatch.setattr("examples.credit_risk.generate.CSV", changed)
    assert main(["--check"]) == 1
    assert "run it without --check" in capsys.readouterr().err


def test_file_is_small_enough_for_a_repository() -> None:
    assert CSV.stat().st_size < 200_000


def test_nothing_is_recorded_that_must_not_decide_on_credit() -> None:
    header = CSV.read_text().partition("\n")[0].split(",")
    assert not {"age", "gender", "sex", "nationality", "religion", "postcode", "name"} & set(header)
