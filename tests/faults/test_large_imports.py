"""10,000 runs with 2 million points, from each kind of source: all counted, at 20,000 points/s at least.

Run by itself: `make test-slow ARGS="-n 0 -s tests/faults/test_large_imports.py"`. The archive is read from a
folder instead of S3; everything else is what `make import` does with rows.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from operations.imports import databases, mlruns
from operations.imports.archive import Archive
from tests.conftest import RdsLike
from tests.server.conftest import Migration, deployment
from tests.server.imports.harness import NAME, OLD_ROOT, Target

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RUNS, METRICS, STEPS = 10_000, 4, 50
POINTS = RUNS * METRICS * STEPS
LEAST = 20_000


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An SQLite database of MLflow's, written by SQL."""
    path = tmp_path_factory.mktemp("sqlite") / "mlflow.db"
    experiment = MlflowClient(f"sqlite:///{path}").create_experiment("large", f"{OLD_ROOT}/1")
    numbers = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {} - 1)"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            f"{numbers.format(RUNS)} INSERT INTO runs (run_uuid, name, source_type, status, start_time,"
            " end_time, lifecycle_stage, artifact_uri, experiment_id, user_id)"
            " SELECT printf('%032x', i), 'run-' || i, 'LOCAL', 'FINISHED', 1700000000000 + i,"
            f" 1700000900000 + i, 'active', '{OLD_ROOT}/1/' || printf('%032x', i) || '/artifacts',"
            f" {experiment}, 'somebody' FROM n"
        )
        for table in ("tags", "params"):
            connection.execute(
                f"INSERT INTO {table} (key, value, run_uuid)"
                " SELECT 'key-' || k.value, hex(k.value * 7919), run_uuid"
                " FROM runs, json_each('[1,2,3,4,5]') k"
            )
        connection.execute(
            f"{numbers.format(METRICS * STEPS)}"
            " INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)"
            f" SELECT 'metric-' || (i % {METRICS}), 1.0 / (i + 3), 1700000000000 + i, i / {METRICS}, 0,"
            " run_uuid FROM runs, n"
        )
        connection.execute(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)"
            f" SELECT key, value, timestamp, step, is_nan, run_uuid FROM metrics WHERE step = {STEPS - 1}"
        )
    yield path
    path.unlink()


@pytest.fixture
def target(rds: RdsLike, migration: Migration, tmp_path: Path) -> Iterator[Target]:
    with deployment(rds, copy_of=migration) as made:
        yield Target(made, tmp_path)
        rds.administer(f"DROP DATABASE {made.database} WITH (FORCE)")


Read = Callable[[Callable[[str], Archive], Callable[[str], object]], Archive]


def measured(kind: str, target: Target, read: Read) -> None:
    """Import, and say how fast."""
    folder = target.folder / "archive"
    begun = time.monotonic()
    archive = read(lambda revision: Archive(folder, source=NAME, kind=kind, revision=revision), print)
    archive.finish(suffix=f"-{NAME}", roots={OLD_ROOT: target.root})
    read_in = time.monotonic() - begun
    report = target.run()
    seconds = time.monotonic() - begun
    size = sum(each.stat().st_size for each in archive.files)
    print(
        f"{kind}: {POINTS:,} points of {RUNS:,} runs in {seconds:.1f} s ({read_in:.1f} s to read,"
        f" {size / 1e6:.0f} MB of archive): {POINTS / seconds:,.0f} points/s"
    )
    shutil.rmtree(folder)
    assert report["rows"]["metrics"] == {"there": POINTS, "here": POINTS, "differing": 0}
    assert report["rows"]["runs"] == {"there": RUNS, "here": RUNS, "differing": 0}
    assert not [table for table, rows in report["rows"].items() if rows["differing"]]
    assert POINTS / seconds >= LEAST


def test_sqlite_and_from_there_postgresql(
    sqlite: Path, target: Target, rds: RdsLike, migration: Migration, tmp_path: Path
) -> None:
    url = databases.parsed(f"sqlite:///{sqlite}", {})
    measured("SQLite", target, lambda begin, say: databases.read(url, begin, say))
    made = target.made
    source = databases.parsed(
        f"postgresql://{made.migrator}@{rds.host}:{rds.port}/{made.database}"
        f"?sslmode=verify-full&sslrootcert={rds.ca_file}",
        {},
    )
    with deployment(rds, copy_of=migration) as other:
        second = Target(other, tmp_path / "second")
        measured("PostgreSQL", second, lambda begin, say: databases.read(source, begin, say))
        rds.administer(f"DROP DATABASE {other.database} WITH (FORCE)")


def test_a_folder_of_runs(target: Target) -> None:
    folder = target.folder / "mlruns"
    experiment = folder / "738123456789012345"
    experiment.mkdir(parents=True)
    (experiment / "meta.yaml").write_text(
        f"artifact_location: {OLD_ROOT}/738123456789012345\nexperiment_id: '738123456789012345'\n"
        "lifecycle_stage: active\nname: large\ncreation_time: 1700000000000\n"
    )
    points = "".join(f"{1_700_000_000_000 + step} {1 / (step + 3)!r} {step}\n" for step in range(STEPS))
    for number in range(RUNS):
        run = experiment / f"{number:032x}"
        (run / "metrics").mkdir(parents=True)
        (run / "meta.yaml").write_text(
            f"artifact_uri: {OLD_ROOT}/738123456789012345/{run.name}/artifacts\nend_time: 1700000900000\n"
            f"entry_point_name: ''\nexperiment_id: '738123456789012345'\nlifecycle_stage: active\n"
            f"run_id: {run.name}\nrun_name: run-{number}\nrun_uuid: {run.name}\nsource_name: ''\n"
            "source_type: 4\nstart_time: 1700000000000\nstatus: 3\ntags: []\nuser_id: somebody\n"
        )
        for metric in range(METRICS):
            (run / "metrics" / f"metric-{metric}").write_text(points)
        for kind in ("params", "tags"):
            (run / kind).mkdir()
            for key in range(5):
                (run / kind / f"key-{key}").write_text(f"{key * 7919:x}")
    measured("mlruns/", target, lambda begin, say: mlruns.read(folder, begin, say))
    shutil.rmtree(folder)
