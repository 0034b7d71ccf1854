"""`python -m bench`: measure, and show what was measured."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import uvloop

from bench import records, report
from bench.deployed import load_deployed
from bench.growth import grow, stages
from bench.imports import QUICK as FEW_IMPORTS
from bench.imports import Amount, measure_imports
from bench.readers import measure_readers
from bench.run import QUICK, Plan, chosen, run, to_stderr
from bench.scenarios import SCENARIOS
from bench.sealing import measure_sealing
from bench.systems import SystemFailedError
from bench.wire import Wire
from local.parts.postgres import PostgresError

RESULTS = Path(__file__).resolve().parent / "results"


def main(arguments: Sequence[str]) -> int:
    """Run a command and return the exit code: 0 done, 1 a server failed, 2 wrong usage, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        plan = _checked(options)
        if options.command in {"readme", "report"}:
            records.load(options.results / "latest.json")
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    try:
        if options.command == "readme":
            return report.refresh_readme(options.results)
        if options.command == "report":
            report.write(options.results / "latest.json")
            return 0
        if options.url:
            return _deployed(options.url, plan, options.results)
        if options.grow:
            return _grow(options.grow, plan, options.results)
        if options.readers:
            return _readers(plan, options.results)
        if options.imports:
            return _imports(FEW_IMPORTS if options.quick else Amount(), options.results)
        if options.sealing:
            return _sealing(plan, options.results)
        return _run(plan, options.results)
    except (SystemFailedError, PostgresError, RuntimeError) as error:
        to_stderr(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        to_stderr("bench: interrupted; everything it started is stopped, and no results were written")
        return 130


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM stops what was started, as Ctrl-C does.

    While an event loop runs, that means to cancel its task: an exception raised anywhere else could end in a
    callback and be lost there.
    """
    now = signal.getsignal(signal.SIGINT)
    # Not callable where SIGINT is ignored, as in a shell's background.
    (now if callable(now) else signal.default_int_handler)(number, frame)


def _run(plan: Plan, results: Path) -> int:
    measured, metadata = run(plan, say=to_stderr)
    # README shows whole runs only.
    path = (results if plan == Plan() else results / "partial") / "latest.json"
    records.save(path, measured, metadata)
    report.write(path)
    to_stderr(f"bench: {len(measured)} records in {path}, {metadata['seconds']} s")
    return 0


def _deployed(url: str, plan: Plan, results: Path) -> int:
    path = results / "deployed.json"
    measured, metadata = uvloop.run(load_deployed(url, plan, say=to_stderr))
    records.save(path, measured, metadata)
    print(report.table(records.Results(measured)))
    return 0


def _grow(most: int, plan: Plan, results: Path) -> int:
    path = results / "growth.json"
    measured, metadata = grow(most, plan, say=to_stderr)
    records.save(path, measured, metadata)
    report.write_growth(path)
    return 0


def _readers(plan: Plan, results: Path) -> int:
    measured, metadata = measure_readers(plan, say=to_stderr)
    records.save(results / "readers.json", measured, metadata)
    return 0


def _sealing(plan: Plan, results: Path) -> int:
    measured, metadata = measure_sealing(plan, say=to_stderr)
    records.save(results / "sealing.json", measured, metadata)
    return 0


def _imports(amount: Amount, results: Path) -> int:
    measured, metadata = measure_imports(amount, say=to_stderr)
    records.save(
        (results if amount == Amount() else results / "partial") / "imports.json", measured, metadata
    )
    return 0


def _checked(options: argparse.Namespace) -> Plan:
    plan = _plan(options)
    chosen(plan)
    if options.url:
        Wire.to(options.url)
    if options.grow:
        stages(options.grow)
    return plan


def _plan(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else Plan()
    changes: dict[str, object] = {}
    if options.only:
        changes |= _only(options.only.split(","))
    if options.systems:
        changes["systems"] = tuple(options.systems.split(","))
    if options.seconds:
        changes["seconds"] = options.seconds
    if options.concurrency:
        default = dict(plan.rounds)
        wanted = [int(each) for each in options.concurrency.split(",")]
        changes["rounds"] = {each: options.rounds or default.get(each, 1) for each in wanted}
    elif options.rounds:
        changes["rounds"] = dict.fromkeys(plan.rounds, options.rounds)
    if options.no_fast_path:
        changes["fast_path"] = False
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


def _only(names: Sequence[str]) -> dict[str, object]:
    training = [name.removeprefix("training-") for name in names if name.startswith("training-")]
    pressure = tuple(name for name in names if name in Plan().pressure)
    others = [
        name for name in names if name not in pressure and name != "gate" and not name.startswith("training-")
    ]
    return {
        "scenarios": tuple(others),
        "training_runs": tuple(int(each) for each in training),
        "pressure": pressure,
        "gate": "gate" in names,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Load and cost of our server beside stock MLflow and bare SQL, in one interleaved run on "
        "this machine. Nothing but the loopback interface is loaded, unless --url names a deployment.",
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "report", "readme"),
        default="run",
        help="run (default): measure; report: table and plots again; readme: README's performance section",
    )
    parser.add_argument("--quick", action="store_true", help="a minute or two, to see that everything works")
    parser.add_argument(
        "--only",
        metavar="NAME,…",
        help=f"of {', '.join(each.name for each in SCENARIOS)}, training-N, slow-clients, large-bodies, gate",
    )
    parser.add_argument("--systems", metavar="NAME,…", help="of ours, stock, floor")
    parser.add_argument("--concurrency", metavar="N,…", help="callers at once (default 1,16,64)")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each system per measurement")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of a turn (default 1.5)")
    parser.add_argument("--no-fast-path", action="store_true", help="ours with MLFLOW_AWS_FAST_PATH=off")
    parser.add_argument(
        "--grow",
        type=int,
        metavar="RUNS",
        help="instead: cost of the main calls while the database grows from 1,000 to RUNS runs of 200 points",
    )
    parser.add_argument(
        "--readers",
        action="store_true",
        help="instead: what a standby takes off the writer, in PostgreSQL's CPU time for each call",
    )
    parser.add_argument(
        "--sealing",
        action="store_true",
        help="instead: what sealing adds to the registration of a model of ten files and 5 MB",
    )
    parser.add_argument(
        "--imports",
        action="store_true",
        help="instead: 10,000 runs with 2 million points by each way of `make import`, and by "
        "mlflow-export-import what it can",
    )
    parser.add_argument(
        "--url",
        help="instead: a bounded load on a deployed server, in an experiment of its own; the bearer token is "
        "read from MLFLOW_TRACKING_TOKEN, a private CA from MLFLOW_TRACKING_SERVER_CERT_PATH",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where results are kept")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
