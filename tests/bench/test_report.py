from __future__ import annotations

from pathlib import Path

import pytest

from bench import report
from bench.plots import draw, draw_growth
from bench.records import BenchRecord, Results, load, save
from bench.report import END, START, growth_table, readme_section, refresh_readme, table, with_section

METADATA = {
    "date": "2026-01-02",
    "machine": {"processor": "Some CPU", "cores": 2, "memory_gb": 8.0, "system": "Linux 6"},
    "versions": {"mlflow": "3.17.2", "postgresql": "18.4"},
}
MEASURED = Results(
    [
        BenchRecord("start", 1, "ours", None, 5_000.0, 5_100.0, 0, {"pss_mb": 250.4, "processes": 3}),
        BenchRecord("start", 1, "stock", None, 20_000.0, 20_000.0, 0, {"pss_mb": 2_200.0, "processes": 14}),
        BenchRecord("log-batch-100", 1, "ours", 400.0, 2.5, 3.0, 0),
        BenchRecord("log-batch-100", 1, "stock", 13.0, 75.0, 90.0, 0),
        BenchRecord("log-batch-100", 16, "ours", 600.0, 20.0, 40.0, 0),
        BenchRecord("log-batch-100", 16, "stock", 40.0, 300.0, 900.0, 7),
        BenchRecord("log-batch-100", 16, "floor", 640.0, 19.0, 38.0, 0),
        BenchRecord(
            "training-2000", 2000, "ours", 3_000.0, 400.0, 900.0, 0,
            {"runs_finished": 2_000, "seconds": 9.6, "points_lost": 0},
        ),
    ]
)  # fmt: skip


def test_the_section_says_when_and_on_what_machine() -> None:
    section = readme_section(MEASURED, METADATA)
    assert "2026-01-02" in section
    assert "2 cores (Some CPU, 8 GB)" in section


def test_the_section_compares_with_stock_and_with_bare_sql() -> None:
    line = next(line for line in readme_section(MEASURED, METADATA).splitlines() if "100 metrics" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "log-batch, 100 metrics", "40.0/s (7 failed)", "**600/s**", "15×", "94%", "75.0 ms", "2.50 ms", "30×",
    ]  # fmt: skip


def test_failed_calls_of_ours_are_shown_too() -> None:
    records = [
        *MEASURED.records[:4],
        BenchRecord("log-batch-100", 16, "ours", 600.0, 20.0, 40.0, 3),
        MEASURED.records[5],
    ]
    assert "**600/s** (3 failed)" in readme_section(Results(records), METADATA)


def test_the_section_tells_of_training_start_and_memory() -> None:
    section = readme_section(MEASURED, METADATA)
    assert "2,000 training runs at once" in section
    assert "0 failed calls, 0 lost points" in section
    assert "5.0 s, 250 MB idle in 3 processes; stock: first answer after 20.0 s, 2,200 MB" in section


def test_the_section_tells_of_identity_when_it_was_on() -> None:
    gate = BenchRecord(
        "gate", 1, "ours", None, 0.06, None, 0, {"read_us": 41.4, "write_us": 60.0, "new_token_us": 180.2}
    )
    section = readme_section(Results([*MEASURED.records, gate]), {**METADATA, "identity": True})
    assert "41 µs for a read, 60 µs for a write with its audit line, 180 µs when the token is new" in section
    assert "verifies a token for each call" in section
    assert "verifies a token" not in readme_section(MEASURED, METADATA)


def test_what_was_not_measured_is_not_mentioned() -> None:
    section = readme_section(Results(MEASURED.records[2:6]), METADATA)
    assert "training runs" not in section
    assert "get-run" not in section


def test_only_what_is_between_the_markers_changes() -> None:
    text = f"# Title\n\n{START}\nold\n{END}\n\nrest\n"
    assert with_section(text, "new\n") == f"# Title\n\n{START}\nnew\n{END}\n\nrest\n"


def test_rendering_twice_changes_nothing() -> None:
    once = with_section(f"a\n{START}\n{END}\nb", readme_section(MEASURED, METADATA))
    assert with_section(once, readme_section(MEASURED, METADATA)) == once


def test_a_readme_without_the_markers_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    save(tmp_path / "latest.json", MEASURED.records, METADATA)
    assert refresh_readme(tmp_path, readme) == 1
    assert readme.read_text() == "nothing here\n"


def test_readme_is_what_the_results_say() -> None:
    """Runs if README has its markers and there are results."""
    latest = Path(report.__file__).parent / "results" / "latest.json"
    if not report.README.exists() or START not in report.README.read_text() or not latest.exists():
        pytest.skip("README has no performance section yet")
    text = report.README.read_text()
    assert with_section(text, readme_section(*load(latest))) == text


def test_the_table_has_a_line_for_every_record() -> None:
    assert len(table(MEASURED).splitlines()) == 2 + len(MEASURED.records)


def grown(system: str, runs: int, p50: float) -> BenchRecord:
    return BenchRecord(
        "get-run", 1, system, 1.0, p50, p50, 0,
        {"runs": runs, "metric_rows": runs * 200, "database_bytes": runs * 90_000},
    )  # fmt: skip


def test_growth_is_a_column_per_size() -> None:
    lines = growth_table(
        Results([grown("ours", 1_000, 0.5), grown("ours", 10_000, 0.75), grown("stock", 1_000, 50.0)])
    )
    assert "1,000 runs, 200,000 points | 10,000 runs, 2,000,000 points" in lines
    assert "| get-run | ours | 0.50 ms | 0.75 ms |" in lines
    assert "| get-run | stock | 50.0 ms | – |" in lines


def test_plots_are_drawn_and_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in draw(MEASURED, tmp_path)]
    again = [path.read_bytes() for path in draw(MEASURED, tmp_path)]
    assert first == again
    assert all(b"stock MLflow" in picture for picture in first)


def test_growth_is_drawn(tmp_path: Path) -> None:
    (picture,) = draw_growth(Results([grown("ours", 1_000, 0.5), grown("stock", 1_000, 50.0)]), tmp_path)
    assert b"get-run" in picture.read_bytes()


def test_without_rates_there_is_nothing_to_draw(tmp_path: Path) -> None:
    assert draw(Results(MEASURED.records[:2]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []
