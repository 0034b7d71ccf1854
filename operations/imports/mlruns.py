"""Reading a folder `mlruns/`: MLflow's own migration to SQLite for everything but metrics, which are files.

MLflow's migration makes a Python object of each point, and stops at one that was logged twice, which its
databases keep once. So metrics go from their files straight into the archive.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from operations.command import Say
from operations.errors import CannotRunError
from operations.imports import databases
from operations.imports.archive import Archive, text

# As MLflow's database stores keep what JSON and SQL have no number for.
_LARGEST = 1.7976931348623157e308
_POINT = ["key", "value", "timestamp", "step", "is_nan", "run_uuid"]


def read(folder: Path, begin: Callable[[str], Archive], say: Say) -> Archive:
    """Read every experiment, run, model and trace of the folder, deleted ones too.

    Raises:
        CannotRunError: it is not such a folder.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store import fs2db
    from mlflow.store.fs2db import _tracking

    with tempfile.TemporaryDirectory(prefix="mlflow-import-") as temporary:
        database = Path(temporary) / "mlruns.db"
        try:
            with (
                mock.patch.object(_tracking, "_migrate_run_metrics"),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                fs2db.migrate(folder, f"sqlite:///{database}", progress=False)
        except MlflowException as error:
            raise CannotRunError(f"{folder}: {error.message}") from error
        archive = databases.read(databases.parsed(f"sqlite:///{database}", {}), begin, say)
    twice = _read_metrics(fs2db._resolve_mlruns(folder), archive)
    say(f"read metrics: {archive.rows().get('metrics', 0):,} rows; {twice:,} logged twice are kept once")
    return archive


def _read_metrics(mlruns: Path, archive: Archive) -> int:
    """Write all points and the latest of each metric; returns how many points were there twice."""
    twice = 0
    with (
        archive.part("metrics", "metrics", _POINT) as metrics,
        archive.part("latest_metrics", "latest_metrics", _POINT) as latest,
    ):
        for run, key, file in _metric_files(mlruns):
            lines = file.read_text().splitlines()
            points = {_point(line): None for line in lines if line.strip()}
            if not points:
                continue
            twice += len(lines) - len(points)
            begin, end = f"{text(key)}\t", f"\t{text(run)}\n"
            rows = {point: f"{begin}{_columns(point)}{end}" for point in points}
            metrics.write("".join(rows.values()).encode())
            # What MLflow's stores take for the latest.
            latest.write(rows[max(points)].encode())
    return twice


def _metric_files(mlruns: Path) -> Iterator[tuple[str, str, Path]]:
    from mlflow.store.fs2db._tracking import RESERVED_FOLDERS
    from mlflow.store.fs2db._utils import for_each_experiment, list_subdirs

    for experiment, _ in for_each_experiment(mlruns):
        for run in list_subdirs(experiment):
            metrics = experiment / run / "metrics"
            if run not in RESERVED_FOLDERS and (experiment / run / "meta.yaml").is_file():
                for file in sorted(metrics.rglob("*")):
                    if file.is_file():
                        yield run, file.relative_to(metrics).as_posix(), file


_Point = tuple[int, int, float, bool]


def _point(line: str) -> _Point:
    """Step, time, value, and whether it is no number: in the order by which the latest is the greatest."""
    at, value, *more = line.split()
    number = float(value)
    if math.isnan(number):
        return int(more[0]) if more else 0, int(at), 0.0, True
    return int(more[0]) if more else 0, int(at), max(-_LARGEST, min(_LARGEST, number)), False


def _columns(point: _Point) -> str:
    step, at, value, is_nan = point
    return f"{value!r}\t{at}\t{step}\t{'t' if is_nan else 'f'}"
