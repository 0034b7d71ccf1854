"""What is read through REST of a real old server is what is in its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from operations.imports import rest
from operations.imports.archive import Archive
from tests.clients.installation import client, overlay
from tests.conftest import RdsLike
from tests.databases.loading import load
from tests.databases.make_databases import answering
from tests.databases.sources import BY_NAME, Source
from tests.databases.test_upgrade import socket_uri

# What REST does not show, or only the later schema has.
UNSEEN = {
    # Versions and models that were deleted: MLflow keeps a row that no answer has.
    "model_versions": 1,
    "model_version_tags": 1,
    "alembic_version": 1,
}


@contextmanager
def served(source: Source, rds: RdsLike, directory: Path) -> Iterator[str]:
    """The server of the source's version with the source's database."""
    database = rds.new_database()
    with rds.postgres.cursor(database) as cursor:
        load(cursor, source.sql())
    python = client(source.version)
    environ = {
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "PYTHONPATH": str(overlay("stores", python)),
        "HOME": str(directory),
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with answering(socket_uri(rds, database), directory, environ, []) as url:
        yield url


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("2.11.3-postgresql", {}),
        # No search of runs gives the models that a run used, only those that it made.
        ("3.14.0-postgresql", {"inputs": 1, "workspaces": 1}),
    ],
)
def test_every_row_that_rest_shows_is_read_and_none_twice(
    name: str, more: dict[str, int], rds: RdsLike, tmp_path: Path
) -> None:
    unseen = UNSEEN | more
    source = BY_NAME[name]
    said: list[str] = []

    def begin(revision: str) -> Archive:
        return Archive(tmp_path / "archive", source=name, kind="rest", revision=revision)

    with served(source, rds, tmp_path) as url:
        archive = rest.read(url, begin, said.append)
        parts = len(archive.manifest["parts"])
        # What an interruption leaves: all but the last part of one experiment.
        archive.manifest["parts"][:] = [
            part for part in archive.manifest["parts"] if part["file"] != "experiments-1.copy.gz"
        ]
        archive._save()
        said.clear()
        again = rest.read(url, begin, said.append)
    assert len(said) == 1
    assert len(again.manifest["parts"]) == parts
    rows = {table: number for table, number in source.expectation()["rows"].items() if number}
    read = again.rows()
    assert {t: n - unseen.get(t, 0) for t, n in rows.items() if n > unseen.get(t, 0)} == read
