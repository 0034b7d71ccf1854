"""Imports of another MLflow: each way of `make import`, and the public tool mlflow-export-import beside REST.

Rows only; S3, which holds the archives, is the emulator. The tool and the way by REST read the same server
and take turns; each import has an empty database.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from bench.corpus import EPOCH_MS
from bench.credentials import credentials_endpoint
from bench.database import OWNER_ROLE, PostgresCluster, Sizes, cluster, upgrade_schema
from bench.environment import describe
from bench.growth import KEYS_PER_RUN, POINTS_PER_RUN, STEPS_PER_KEY, fill
from bench.identity import contributor
from bench.records import BenchRecord
from bench.run import LOCAL, alone, indexes
from bench.systems import PUBLIC_URL, System, ours, serving, stock
from operations.imports import databases, mlruns, rest
from operations.imports.archive import Archive
from tests.clients.installation import client
from tests.object_store import BUCKET, ObjectStore

_TABLES = ("experiments", "runs", "params", "tags", "latest_metrics", "metrics")
_NAME = "bench"
# By which a server tells which metrics there are.
_LATEST = (
    "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)"
    " SELECT DISTINCT ON (run_uuid, key) key, value, timestamp, step, is_nan, run_uuid FROM metrics"
    " ORDER BY run_uuid, key, step DESC ON CONFLICT DO NOTHING"
)
Begin = Callable[[str], Archive]


@dataclass(frozen=True)
class Amount:
    """Runs of each import, runs that the tool moves too, and how often both do."""

    runs: int = 10_000
    compared: int = 200
    rounds: int = 3


QUICK = Amount(runs=100, compared=20, rounds=1)


def measure_imports(
    amount: Amount, *, say: Callable[[str], None]
) -> tuple[list[BenchRecord], dict[str, Any]]:
    """Import by each way, and count.

    Raises:
        RuntimeError: an import failed, or not all of it arrived.
    """
    began = perf_counter()
    ways = ("PostgreSQL", "SQLite", "mlruns", "REST")
    targets = [way.lower() for way in ways] + [f"round{number}" for number in range(amount.rounds)]
    records: list[BenchRecord] = []
    with alone(), cluster(LOCAL) as base, tempfile.TemporaryDirectory(prefix="bench-imports-") as made:
        folder = Path(made)
        base.prepare(("ours", "whole", "part", *targets), Sizes(written=0, small=0, large=0, with_history=0))
        for target in ("ours", *targets):
            base.execute(target, indexes())
        base.execute("whole", [*fill(1, amount.runs), _LATEST, "VACUUM (ANALYZE)"])
        base.execute("part", [*fill(1, amount.compared), _LATEST, "VACUUM (ANALYZE)"])
        sqlite = _sqlite(base, folder / "whole.db")
        _mlruns(folder / "mlruns", amount.runs)
        with _importing(base) as importing, serving(importing.source, importing.part, importing.target):
            for system in (importing.source, importing.part, importing.target):
                system.start()
            read: Mapping[str, Callable[[Begin], Archive]] = {
                "PostgreSQL": lambda begin: databases.read(
                    databases.parsed(base.uri("whole", OWNER_ROLE), {}), begin, _silent
                ),
                "SQLite": lambda begin: databases.read(
                    databases.parsed(f"sqlite:///{sqlite}", {}), begin, _silent
                ),
                "mlruns": lambda begin: mlruns.read(folder / "mlruns", begin, _silent),
                "REST": lambda begin: rest.read(_url(importing.source), begin, _silent),
            }
            for way in ways:
                records.append(_record(way, "ours", [importing.by_us(read[way], way.lower(), amount.runs)]))
                say(_line(records[-1]))
            turns: Mapping[str, Callable[[int], tuple[int, float]]] = {
                "ours": lambda number: importing.by_us(
                    lambda begin: rest.read(_url(importing.part), begin, _silent),
                    f"round{number}",
                    amount.compared,
                ),
                "tool": lambda number: importing.by_tool(f"round {number}", amount.compared),
            }
            seconds: dict[str, list[tuple[int, float]]] = {name: [] for name in turns}
            for number in range(amount.rounds):
                for name in sorted(turns, reverse=number % 2 == 0):
                    seconds[name].append(turns[name](number))
        settings = base.settings()
    tool = _record("REST beside the tool, mlflow-export-import", "stock", seconds["tool"])
    beside = _record("REST beside the tool", "ours", seconds["ours"])
    times = beside.more["points_per_second"] / tool.more["points_per_second"]
    for record in (tool, replace(beside, more={**beside.more, "to_tool": times})):
        records.append(record)
        say(_line(record))
    say(f"REST: {times:.1f} x mlflow-export-import")
    return records, describe(plan=asdict(amount), seconds=perf_counter() - began, postgresql=settings)


@dataclass
class _Importing:
    """The servers that are read, and the deployment that imports."""

    base: PostgresCluster
    store: ObjectStore
    source: System
    part: System
    target: System
    token: str

    def by_us(self, read: Callable[[Begin], Archive], target: str, runs: int) -> tuple[int, float]:
        """Points and seconds of `make import`, from reading to the last commit."""
        with tempfile.TemporaryDirectory(prefix="bench-imports-") as folder:
            began = perf_counter()
            archive = read(
                lambda revision: Archive(Path(folder), source=_NAME, kind="bench", revision=revision)
            )
            archive.finish(suffix=f"-{_NAME}", roots={})
            for file in archive.files:
                self.store.client.upload_file(str(file), BUCKET, f"imports/{_NAME}/{file.name}")
            command = [self.target.command[0], "-m", "mlflow_aws_server", "import"]
            _run([*command, "--archive", _NAME, "--sha256", archive.sha256], {
                **self.target.environment,
                "MLFLOW_AWS_DATABASE_NAME": target,
                "MLFLOW_AWS_DATABASE_MIGRATOR": OWNER_ROLE,
            })  # fmt: skip
            seconds = perf_counter() - began
            there = archive.rows()
        here = {table: self.base.query(target, f"SELECT count(*) FROM {table}")[0][0] for table in there}
        # The experiments of the corpus are everywhere.
        missing = [table for table in there if table != "experiments" and here[table] != there[table]]
        points = KEYS_PER_RUN * STEPS_PER_KEY if target == "mlruns" else POINTS_PER_RUN
        if missing or (here["runs"], here["metrics"]) != (runs, runs * points):
            raise RuntimeError(f"of {there} rows, {here} arrived in {target}")
        return there["metrics"], seconds

    def by_tool(self, experiment: str, runs: int) -> tuple[int, float]:
        """Points and seconds of the public tool, out of the source and into the server."""
        with tempfile.TemporaryDirectory(prefix="bench-imports-") as folder:
            environ = {
                "PATH": f"{client('3.14.0').parent}:/usr/bin:/bin",
                "HOME": folder,
                "GIT_PYTHON_REFRESH": "quiet",
                "MLFLOW_S3_ENDPOINT_URL": self.store.endpoint,
                "AWS_ACCESS_KEY_ID": "x",
                "AWS_SECRET_ACCESS_KEY": "x",
            }
            began = perf_counter()
            _run(["export-experiment", "--experiment", "bench 3", "--output-dir", f"{folder}/out"],
                 {**environ, "MLFLOW_TRACKING_URI": _url(self.part)})  # fmt: skip
            _run(["import-experiment", "--experiment-name", experiment, "--input-dir", f"{folder}/out"],
                 {**environ, "MLFLOW_TRACKING_URI": _url(self.target),
                  "MLFLOW_TRACKING_TOKEN": self.token})  # fmt: skip
            seconds = perf_counter() - began
        found = "FROM runs r JOIN experiments e USING (experiment_id)"
        named = f"WHERE e.name = '{experiment}'"
        ((here,),) = self.base.query("ours", f"SELECT count(*) {found} {named}")
        points = f"SELECT count(*) FROM metrics m JOIN (SELECT run_uuid {found} {named}) r USING (run_uuid)"
        ((moved,),) = self.base.query("ours", points)
        if (here, moved) != (runs, runs * POINTS_PER_RUN):
            raise RuntimeError(f"of {runs} runs, {here} with {moved} points arrived in {experiment}")
        return moved, seconds


@contextlib.contextmanager
def _importing(base: PostgresCluster) -> Iterator[_Importing]:
    store, logs = ObjectStore(), LOCAL / "bench"
    store.start()
    try:
        # Of the runs that the tool looks through for files.
        store.client.create_bucket(
            Bucket="bench-artifacts", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        with credentials_endpoint() as url, contributor(base.authority, audience=PUBLIC_URL) as program:
            target = ours(base, logs, credentials_url=url, identity=program)
            authorization = {"Authorization": program.headers["Authorization"]}
            environment = {
                **target.environment,
                "AWS_ENDPOINT_URL_S3": store.endpoint,
                "MLFLOW_AWS_ARTIFACT_ROOT": f"s3://{BUCKET}",
                "MLFLOW_AWS_PUBLIC_URL": f"https://127.0.0.1:{target.port}",
            }
            yield _Importing(
                base,
                store,
                stock(base, logs / "whole", database="whole"),
                stock(base, logs / "part", database="part"),
                replace(target, environment=environment, headers=authorization),
                authorization["Authorization"].removeprefix("Bearer "),
            )
    finally:
        store.stop()


def _run(command: list[str], environ: Mapping[str, str]) -> None:
    # `env` finds the command on the path that it is given.
    done = subprocess.run(
        ["env", *command], env=dict(environ), cwd=environ["HOME"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _sqlite(base: PostgresCluster, path: Path) -> Path:
    """The same rows in SQLite."""
    upgrade_schema(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table in _TABLES:
            with base.postgres.cursor("whole") as cursor:
                cursor.execute(f"SELECT * FROM {table}")
                columns = [column.name for column in cursor.description]
                values = ", ".join("?" * len(columns))
                insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"
                connection.executemany(insert, cursor)
    return path


def _mlruns(folder: Path, runs: int) -> None:
    """As many runs and points in files, as MLflow writes them."""
    experiment = folder / "738123456789012345"
    experiment.mkdir(parents=True)
    place = f"s3://bench-artifacts/{experiment.name}"
    (experiment / "meta.yaml").write_text(
        f"artifact_location: {place}\nexperiment_id: '{experiment.name}'\n"
        f"lifecycle_stage: active\nname: large\ncreation_time: {EPOCH_MS}\n"
    )
    points = "".join(f"{EPOCH_MS + step} {1 / (step + 3)!r} {step}\n" for step in range(STEPS_PER_KEY))
    for number in range(runs):
        run = experiment / f"{number:032x}"
        (run / "metrics").mkdir(parents=True)
        (run / "meta.yaml").write_text(
            f"artifact_uri: {place}/{run.name}/artifacts\nend_time: {EPOCH_MS + 60_000}\n"
            f"entry_point_name: ''\nexperiment_id: '{experiment.name}'\nlifecycle_stage: active\n"
            f"run_id: '{run.name}'\nrun_name: run-{number}\nrun_uuid: '{run.name}'\nsource_name: ''\n"
            f"source_type: 4\nstart_time: {EPOCH_MS}\nstatus: 3\ntags: []\nuser_id: somebody\n"
        )
        for metric in range(KEYS_PER_RUN):
            (run / "metrics" / f"metric-{metric}").write_text(points)
        for kind in ("params", "tags"):
            (run / kind).mkdir()
            for key in range(5):
                (run / kind / f"key-{key}").write_text(f"{key * 7919:x}")


def _record(scenario: str, system: str, imports: list[tuple[int, float]]) -> BenchRecord:
    rates = [points / seconds for points, seconds in imports]
    more = {
        "points": imports[0][0],
        "seconds": median(seconds for _, seconds in imports),
        "points_per_second": median(rates),
        "of_rounds": rates,
    }
    return BenchRecord(f"import, {scenario}", 1, system, None, None, None, 0, more)


def _line(record: BenchRecord) -> str:
    more = record.more
    return (
        f"{record.scenario:<52} {more['points']:>9,} points, {more['seconds']:6.1f} s, "
        f"{more['points_per_second']:9,.0f} points/s"
    )


def _url(system: System) -> str:
    return f"http://127.0.0.1:{system.port}"


def _silent(_: str) -> None:
    pass
