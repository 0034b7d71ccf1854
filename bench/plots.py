"""Results as pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

from bench.records import BenchRecord, Results
from bench.scenarios import SCENARIOS

matplotlib.use("svg")
# So that the same results give the same bytes.
matplotlib.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 8})

from matplotlib import pyplot  # noqa: E402 - the backend is chosen first

_STYLE = {
    "ours": ("#0b6e4f", "o", "this server"),
    "stock": ("#c8553d", "s", "stock MLflow"),
    "floor": ("#8d99ae", "^", "bare SQL"),
}


def draw(results: Results, directory: Path) -> list[Path]:
    """Throughput and latency against concurrency, one small plot per scenario; returns the files (none if no
    scenario with a rate was measured)."""
    if not any(results.concurrencies(each.name) for each in SCENARIOS):
        return []
    return [
        _draw_grid(results, directory / "throughput.svg", "calls per second", lambda each: each.rps),
        _draw_grid(results, directory / "latency.svg", "p99, ms", lambda each: each.p99_ms),
    ]


def _draw_grid(
    results: Results, path: Path, label: str, value: Callable[[BenchRecord], float | None]
) -> Path:
    shown = [each for each in SCENARIOS if results.concurrencies(each.name)]
    columns = 4
    rows = -(-len(shown) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(11, 2.3 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, scenario in zip(axes.flat, shown, strict=False):
        callers = results.concurrencies(scenario.name)
        for system, (colour, marker, name) in _STYLE.items():
            found = [results.find(scenario.name, count, system) for count in callers]
            line = [
                (each.concurrency, measured)
                for each in found
                if each is not None and (measured := value(each)) is not None and measured > 0
            ]
            if line:
                axis.plot(*zip(*line, strict=True), color=colour, marker=marker, markersize=3, label=name)
        _logarithmic(axis, callers)
        axis.set_title(scenario.title, fontsize=7)
        axis.set_ylabel(label)
        axis.set_xlabel("callers")
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, frameon=False)
    return _save(figure, path)


def draw_growth(results: Results, directory: Path) -> list[Path]:
    """Median latency of a single caller against the number of runs; returns the files."""
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, system in zip(axes, ("ours", "stock"), strict=True):
        for scenario in results.scenarios():
            line = sorted(
                (each.more["runs"], each.p50_ms)
                for each in results.records
                if each.scenario == scenario and each.system == system and each.p50_ms
            )
            if line:
                axis.plot(*zip(*line, strict=True), marker="o", markersize=3, label=scenario)
        _logarithmic(axis, sorted({each.more["runs"] for each in results.records}))
        axis.set_title(_STYLE[system][2])
        axis.set_xlabel("runs, each with 200 points")
        axis.set_ylabel("p50 of one caller, ms")
    axes[0].legend(frameon=False, fontsize=7)
    return [_save(figure, directory / "growth.svg")]


def _logarithmic(axis: Any, ticks: list[int]) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(visible=True, which="major", linewidth=0.4, alpha=0.5)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
