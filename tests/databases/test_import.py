"""What MLflow of other versions has kept, in every kind of store, becomes part of a deployment, counted.

Every row is here as it was there, today's client sees what the client of its time saw, but for what an import
tells that it changes, and a model that an old version logged loads from its new place.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pytest
from mlflow import MlflowClient

from operations.imports import artifacts, databases, dumps, mlruns
from operations.imports.archive import Archive
from tests.conftest import RdsLike
from tests.databases.make_databases import _mariadb
from tests.databases.seen import seen
from tests.databases.sources import ARTIFACT_BUCKET, SOURCES, Source
from tests.databases.test_upgrade import socket_uri
from tests.object_store import ObjectStore
from tests.server.conftest import Migration, deployment
from tests.server.imports.harness import Target

pytestmark = pytest.mark.slow

# Registered from a bucket that is nobody's: it stays there.
_ELSEWHERE = "s3://example/elsewhere/model"


@pytest.fixture
def target(rds: RdsLike, migration: Migration, tmp_path: Path) -> Iterator[Target]:
    with deployment(rds, copy_of=migration) as made:
        yield Target(made, tmp_path)


def read(source: Source, folder: Path, begin: Callable[[str], Archive]) -> Archive:
    """The archive of a kept source, read as its operator would."""
    if source.backend == "postgresql":
        return dumps.read(source.dump, begin, print)
    if source.backend == "mlruns":
        return mlruns.read(folder / "files", begin, print)
    if source.backend == "mysql":
        if shutil.which("mariadbd") is None:
            pytest.skip("no MariaDB (Debian's mariadb-server): nothing is known of MySQL")
        with _mariadb(folder) as (port, socket):
            client = ["mariadb", "--no-defaults", f"--socket={socket}", "mlflow"]
            subprocess.run(client, input=source.sql().encode(), check=True)
            url = databases.parsed(f"mysql://root@127.0.0.1:{port}/mlflow", {})
            return databases.read(url, begin, print)
    path = folder / "mlflow.db"
    path.write_bytes(gzip.decompress(source.dump.read_bytes()))
    return databases.read(databases.parsed(f"sqlite:///{path}", {}), begin, print)


def before(here: Any, ids: Mapping[str, str]) -> Any:
    """What a client sees, with the experiments' ids of the source."""
    if isinstance(here, dict):
        return {
            name: ids.get(value, value) if name == "experiment_id" else before(value, ids)
            for name, value in here.items()
        }
    return [before(each, ids) for each in here] if isinstance(here, list) else here


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_everything_arrives(
    source: Source, target: Target, object_store: ObjectStore, rds: RdsLike, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = source.expectation()
    files = target.folder / "files"
    source.unpack_artifacts(files)
    archive = read(
        source,
        target.folder,
        lambda revision: Archive(target.folder / "archive", source="a", kind="test", revision=revision),
    )
    given = {old: str(files) for old in ("mlflow-artifacts:", f"s3://{ARTIFACT_BUCKET}/artifacts")}
    roots = artifacts.roots(
        archive, given={**given, _ELSEWHERE: artifacts.STAYS}, target=target.root, folder=files
    )
    copied = artifacts.copy(object_store.client, roots, say=print)
    archive.finish(suffix="-a", roots={each.old: each.new for each in roots})
    report = target.run()
    print(report)
    assert copied.document["files"]["differing"] == 0
    assert [table for table, rows in report["rows"].items() if rows["differing"]] == []
    expected = {
        **archive.rows(),
        "experiments": archive.rows()["experiments"] - report["unused_default_experiment"],
    }
    for table, more in report["migrated"].items():
        expected[table] = expected.get(table, 0) + more
    assert {table: rows["there"] for table, rows in report["rows"].items()} == expected
    # The same as an upgrade in place does.
    assert set(report["migrated"]) <= {"trace_tags"}

    for name, value in {
        "MLFLOW_S3_ENDPOINT_URL": object_store.endpoint,
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
    }.items():
        monkeypatch.setenv(name, value)
    uri = socket_uri(rds, target.made.database)
    text = json.dumps(seen(MlflowClient(uri))).replace("imported.mlflow_aws.", "mlflow_aws.")
    for root in roots:
        text = text.replace(root.new, root.old)
    ids = {str(each["becomes"]): str(each["experiment"]) for each in report["mapped"] if "experiment" in each}
    here = before(json.loads(text), ids)
    for each in (here, there["seen"]):
        each["experiments"].pop("Default")
    if source.backend == "mlruns":
        # Files hold infinities, and MLflow's databases the largest number instead.
        for run in (*here["runs"].values(), *there["seen"]["runs"].values()):
            for kind in ("metrics", "histories"):
                run[kind].pop("unusual", None)
    for what in there["seen"]:
        assert here[what] == there["seen"][what]

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    # What MLflow 3 registered by the path within a run was not loadable where it came from.
    if source.version.startswith("2."):
        assert list(mlflow.sklearn.load_model("models:/credit/1").predict([[0.0], [3.0]])) == [0, 1]
    assert target.run()["copied"] == {}
