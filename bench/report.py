"""Results as text: a table of everything, and README's performance section."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.records import BenchRecord, Results, load
from bench.scenarios import SCENARIOS

README = Path(__file__).resolve().parent.parent / "README.md"
START, END = "<!-- bench:start -->", "<!-- bench:end -->"

_TITLES = {each.name: each.title for each in SCENARIOS}
_NOTHING = "–"


def write(path: Path) -> None:
    """Write the table and the plots of the results in `path` beside them."""
    from bench import plots  # matplotlib takes a second to import

    results, metadata = load(path)
    path.with_suffix(".md").write_text(f"{_where(metadata)}\n\n{table(results)}")
    plots.draw(results, path.parent)


def write_growth(path: Path) -> None:
    """Write the growth table and plot of the results in `path` beside them."""
    from bench import plots

    results, metadata = load(path)
    path.with_suffix(".md").write_text(f"{_where_growth(metadata)}\n\n{growth_table(results)}")
    plots.draw_growth(results, path.parent)


def refresh_readme(results: Path, readme: Path = README) -> int:
    """Render README's performance section from `results`/latest.json.

    Returns 0, or 1 when README has no place for it.

    Raises:
        FileNotFoundError: there are no results yet.
    """
    text = readme.read_text()
    if START not in text or END not in text:
        print(f"{readme.name} has no {START} … {END}: put these two lines where the section belongs")
        return 1
    readme.write_text(with_section(text, readme_section(*load(results / "latest.json"))))
    return 0


def with_section(readme: str, section: str) -> str:
    """`readme` with `section` between its markers."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{section}{END}{after}"


def table(results: Results) -> str:
    """Every record, one per line."""
    lines = [
        "| scenario | callers | system | calls/s | p50 ms | p99 ms | errors | server cores | database cores |"
        " generator cores |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in results.records:
        cores = (each.more.get(name) for name in ("server_cores", "database_cores", "generator_cores"))
        cells = (
            each.scenario,
            f"{each.concurrency:,}",
            each.system,
            _number(each.rps),
            _number(each.p50_ms),
            _number(each.p99_ms),
            f"{each.errors:,}",
            *(_NOTHING if value is None else f"{value:.2f}" for value in cores),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def growth_table(results: Results) -> str:
    """Median latencies of a single caller: a line per call and system, a column per size."""
    sizes = sorted({(each.more["runs"], each.more["metric_rows"]) for each in results.records})
    lines = [
        "| call | system | " + " | ".join(f"{runs:,} runs, {rows:,} points" for runs, rows in sizes) + " |",
        "|---|---|" + "--:|" * len(sizes),
    ]
    by_size = {(each.scenario, each.system, each.more["runs"]): each for each in results.records}
    for scenario, system in dict.fromkeys((each.scenario, each.system) for each in results.records):
        found = [by_size.get((scenario, system, runs)) for runs, _ in sizes]
        cells = (_NOTHING if each is None else f"{_number(each.p50_ms)} ms" for each in found)
        lines.append(f"| {scenario} | {system} | {' | '.join(cells)} |")
    gigabytes = {each.more["runs"]: each.more["database_bytes"] / 1e9 for each in results.records}
    lines.append(
        "| size of the database | | " + " | ".join(f"{gigabytes[runs]:.1f} GB" for runs, _ in sizes) + " |"
    )
    return "\n".join(lines) + "\n"


def readme_section(results: Results, metadata: Mapping[str, Any]) -> str:
    """README's performance section, without its markers; every figure in it is one of `results`."""
    return (
        "\n\n".join(
            part
            for part in (
                _where(metadata),
                _comparison(results),
                "\n".join(_sentences(results)),
                "![Throughput against concurrency](bench/results/throughput.svg)",
                "How it was measured, the limits and the growth with size: "
                "[docs/performance.md](docs/performance.md); all records: "
                "[bench/results/latest.md](bench/results/latest.md).",
            )
            if part
        )
        + "\n"
    )


def _where(metadata: Mapping[str, Any]) -> str:
    return (
        f"Measured on {metadata['date']} by `make bench` on {_machine(metadata)} defaults for “stock”, our "
        "defaults for “this server”, TLS `verify-full` to the database for both, durable commits. All take "
        f"turns in one run; rates are medians of the turns.{_identity(metadata)}"
    )


def _identity(metadata: Mapping[str, Any]) -> str:
    if not metadata.get("identity"):
        return ""
    return " This server verifies a token for each call and audits what changes; stock serves anybody."


def _where_growth(metadata: Mapping[str, Any]) -> str:
    return (
        f"Measured on {metadata['date']} by `python -m bench --grow` on {_machine(metadata)} defaults for "
        "“stock”, our defaults for “ours”, on the same growing database. Medians of one caller's calls."
    )


def _machine(metadata: Mapping[str, Any]) -> str:
    machine, versions = metadata["machine"], metadata["versions"]
    return (
        f"one machine with {machine['cores']} cores ({machine['processor']}, {machine['memory_gb']:.0f} GB) "
        f"that the server, PostgreSQL {versions['postgresql']} and the load generator share; MLflow "
        f"{versions['mlflow']}, its"
    )


def _comparison(results: Results) -> str:
    lines = [
        "| call | stock, 16 callers | this server | | of bare SQL | stock, 1 caller | this server | |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for scenario in results.scenarios():
        if scenario not in _TITLES:
            continue
        ours, stock = (results.find(scenario, 16, system) for system in ("ours", "stock"))
        if ours is None or stock is None:
            continue
        alone, stock_alone = (results.find(scenario, 1, system) for system in ("ours", "stock"))
        floor = results.find(scenario, 16, "floor")
        cells = (
            _TITLES[scenario],
            f"{_number(stock.rps)}/s{_failures(stock)}",
            f"**{_number(ours.rps)}/s**{_failures(ours)}",
            _times(ours.rps, stock.rps),
            _NOTHING if floor is None or not floor.rps else f"{(ours.rps or 0) / floor.rps:.0%}",
            _latency(stock_alone),
            _latency(alone),
            _times(stock_alone.p50_ms, alone.p50_ms) if alone and stock_alone else _NOTHING,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _sentences(results: Results) -> list[str]:
    tellers: Mapping[str, tuple[str, Callable[[BenchRecord], str]]] = {
        "start": ("Start and rest", _started),
        "gate": ("Identity, per call", _gated),
        "training": ("{:,} training runs at once", _trained),
        "slow-clients": ("{:,} clients that send a byte per second", _pressed),
        "large-bodies": ("{:,} clients that send 2 MB bodies", _pressed),
    }
    said = []
    for scenario in results.scenarios():
        found = {each.system: each for each in results.records if each.scenario == scenario}
        kind = "training" if scenario.startswith("training-") else scenario
        if kind not in tellers or "ours" not in found:
            continue
        title, tell = tellers[kind]
        stock = f"; stock: {tell(found['stock'])}" if "stock" in found else ""
        said.append(f"- **{title.format(found['ours'].concurrency)}**: {tell(found['ours'])}{stock}.")
    return said


def _gated(record: BenchRecord) -> str:
    return (
        f"{record.more['read_us']:.0f} µs for a read, {record.more['write_us']:.0f} µs for a write with its "
        f"audit line, {record.more['new_token_us']:.0f} µs when the token is new"
    )


def _trained(record: BenchRecord) -> str:
    return (
        f"{record.more['runs_finished']:,} finished in {record.more['seconds']:.0f} s, "
        f"{record.errors:,} failed calls, {record.more['points_lost']:,} lost points, "
        f"log-batch p99 {_number(record.p99_ms)} ms"
    )


def _started(record: BenchRecord) -> str:
    return (
        f"first answer after {(record.p50_ms or 0) / 1000:.1f} s, {record.more['pss_mb']:,.0f} MB idle in "
        f"{record.more['processes']} processes"
    )


def _pressed(record: BenchRecord) -> str:
    return (
        f"others get {_number(record.rps)}/s with p99 {_number(record.p99_ms)} ms ({record.errors} errors), "
        f"memory {record.more['pss_mb_before']:,.0f} → {record.more['pss_mb_peak']:,.0f} MB"
    )


def _failures(record: BenchRecord) -> str:
    return f" ({record.errors:,} failed)" if record.errors else ""


def _times(larger: float | None, smaller: float | None) -> str:
    if not larger or not smaller:
        return _NOTHING
    ratio = larger / smaller
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def _latency(record: BenchRecord | None) -> str:
    return _NOTHING if record is None else f"{_number(record.p50_ms)} ms"


def _number(value: float | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
