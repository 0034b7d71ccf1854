from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.records import BenchRecord, Results, load, metadata_path, percentile, save

RECORD = BenchRecord(
    "log-batch-1", 16, "ours", 5700.12345, 2.5, 9.0, 3, {"server_cores": 1.23456, "statuses": {"200": 5}}
)


def test_a_record_has_the_keys_that_others_rely_on() -> None:
    assert list(RECORD.as_json())[:7] == [
        "scenario", "concurrency", "system", "rps", "p50_ms", "p99_ms", "errors",
    ]  # fmt: skip


def test_further_keys_stand_beside_the_common_keys() -> None:
    assert RECORD.as_json()["server_cores"] == 1.235
    assert RECORD.as_json()["statuses"] == {"200": 5}


def test_a_further_key_cannot_overwrite_a_common_one() -> None:
    with pytest.raises(ValueError, match="errors"):
        BenchRecord("x", 1, "ours", 1.0, 1.0, 1.0, 0, {"errors": 9}).as_json()


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "latest.json"
    save(path, [RECORD], {"date": "2026-01-01"})
    results, metadata = load(path)
    assert results.find("log-batch-1", 16, "ours") == BenchRecord.from_json(RECORD.as_json())
    assert metadata == {"date": "2026-01-01"}


def test_results_are_a_plain_list_and_metadata_a_file_beside(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    save(path, [RECORD, RECORD], {})
    assert [each["scenario"] for each in json.loads(path.read_text())] == ["log-batch-1"] * 2
    assert metadata_path(path).name == "latest.meta.json"


def test_an_unknown_system_is_refused() -> None:
    with pytest.raises(ValueError, match="theirs"):
        BenchRecord.from_json(RECORD.as_json() | {"system": "theirs"})


def test_a_record_without_a_key_is_refused_by_its_name() -> None:
    incomplete = {key: value for key, value in RECORD.as_json().items() if key != "p99_ms"}
    with pytest.raises(ValueError, match="p99_ms"):
        BenchRecord.from_json(incomplete)


def test_what_was_not_measured_is_not_found() -> None:
    assert Results([RECORD]).find("log-batch-1", 64, "ours") is None


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1)) == (50.0, 99.0, 100.0)


def test_the_slowest_of_a_few_calls_is_their_p99() -> None:
    assert percentile([1.0, 7.0, 2.0], 0.99) == 7.0


def test_no_values_have_no_percentile() -> None:
    assert percentile([], 0.5) is None


def test_a_percentile_is_a_share_not_a_percentage() -> None:
    with pytest.raises(ValueError, match="99"):
        percentile([1.0], 99)
