"""What REST shows of a real old server is read, arrives whole in a deployment, and arrives once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from operations.imports import artifacts, rest
from operations.imports.archive import Archive
from tests.clients.installation import client, overlay
from tests.conftest import RdsLike
from tests.databases.loading import load
from tests.databases.make_databases import _files, answering
from tests.databases.seen import seen
from tests.databases.sources import ARTIFACT_BUCKET, BY_NAME, Source
from tests.databases.test_import import before
from tests.databases.test_upgrade import socket_uri
from tests.object_store import ObjectStore
from tests.server.conftest import Migration, deployment
from tests.server.imports.harness import NAME, Target

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# What REST does not show: of deleted versions and models MLflow keeps a row that no answer has.
UNSEEN = {"model_versions": 1, "model_version_tags": 1, "alembic_version": 1}
# Registered from a bucket that is nobody's: it stays there.
ELSEWHERE = "s3://example/elsewhere/model"


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
        # Its processes take longer to start than the reading takes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    files = ["--artifacts-destination", str(directory / "files")]
    with answering(socket_uri(rds, database), directory, environ, files) as url:
        yield url


@pytest.fixture
def target(rds: RdsLike, migration: Migration, tmp_path: Path) -> Iterator[Target]:
    with deployment(rds, copy_of=migration) as made:
        yield Target(made, tmp_path)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        # Its artifacts are the server's.
        ("2.11.3-postgresql", {}),
        # No search of runs gives the models that a run used, only those that it made.
        ("3.14.0-postgresql", {"inputs": 1, "workspaces": 1}),
    ],
)
def test_everything_that_rest_shows_arrives_once(
    name: str, more: dict[str, int], target: Target, object_store: ObjectStore, rds: RdsLike
) -> None:
    source = BY_NAME[name]
    there = source.expectation()
    files = target.folder / "files"
    source.unpack_artifacts(files)
    given = {ELSEWHERE: artifacts.STAYS}
    if source.on_s3:
        given[f"s3://{ARTIFACT_BUCKET}/artifacts"] = str(files)
    said: list[str] = []

    def begin(revision: str) -> Archive:
        return Archive(target.folder / "archive", source=NAME, kind="test", revision=revision)

    with served(source, rds, target.folder) as url:

        def finished(archive: Archive) -> tuple[list[artifacts.Root], artifacts.Copied]:
            roots = artifacts.roots(archive, given=given, target=f"{target.root}-rest", server=url)
            copied = artifacts.copy(object_store.client, roots, say=said.append)
            archive.finish(suffix=f"-{NAME}", roots={root.old: root.new for root in roots})
            return roots, copied

        archive = rest.read(url, begin, said.append)
        # Its points came by the hundred runs.
        assert [line for line in said if not line.startswith("read ")] == []
        parts = len(archive.manifest["parts"])
        # What an interruption leaves: all but the last part of one experiment.
        archive.manifest["parts"][:] = [
            part for part in archive.manifest["parts"] if part["file"] != "experiments-1.copy.gz"
        ]
        archive._save()
        said.clear()
        archive = rest.read(url, begin, said.append)
        assert len(said) == 1
        assert len(archive.manifest["parts"]) == parts
        unseen = UNSEEN | more
        read = {table: rows - unseen.get(table, 0) for table, rows in there["rows"].items()}
        assert archive.rows() == {table: rows for table, rows in read.items() if rows > 0}

        roots, copied = finished(archive)
        assert copied.document["files"]["differing"] == 0
        (root,) = roots
        assert object_store.read(root.new.removeprefix(f"s3://{object_store.bucket}/")) == _files(files)
        first = target.run()
        assert [table for table, rows in first["rows"].items() if rows["differing"]] == []
        everything = target.everything()

        _, again = finished(rest.read(url, begin, said.append))
        assert (again.copied, again.here) == (0, copied.here)
        assert target.run()["copied"] == {}
        assert target.everything() == everything

    text = json.dumps(seen(MlflowClient(socket_uri(rds, target.made.database))))
    text = text.replace("imported.mlflow_aws.", "mlflow_aws.").replace(root.new, root.old)
    ids = {str(each["becomes"]): str(each["experiment"]) for each in first["mapped"] if "experiment" in each}
    here = before(json.loads(text), ids)
    for each in (here, there["seen"]):
        each["experiments"].pop("Default")
    for what in there["seen"]:
        assert here[what] == there["seen"][what]
