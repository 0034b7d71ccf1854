"""Where files are is read from a source's tables; what is missing here is copied, and all of it counted."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from operations.errors import CannotRunError
from operations.imports import artifacts
from operations.imports.archive import Archive
from operations.imports.artifacts import Root


def archive(folder: Path, *, experiment: str, run: str, source: str = "models:/m-1") -> Archive:
    made = Archive(folder / "archive", source="test", kind="test", revision="r")
    for table, columns, row in (
        ("experiments", ["experiment_id", "artifact_location"], ("1", experiment)),
        ("runs", ["experiment_id", "run_uuid", "artifact_uri"], ("1", "abc", run)),
        ("model_versions", ["source", "storage_location"], (source, None)),
    ):
        with made.part(table, table, columns) as part:
            part.add([row])
    return made


class Bucket:
    """Stands in for S3: keys with their sizes, all written now."""

    def __init__(self, **objects: int) -> None:
        self.objects = dict(objects)

    def get_paginator(self, _: str) -> Bucket:
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> list[dict[str, Any]]:  # noqa: N803 - boto3's
        now = dt.datetime.now(dt.UTC)
        return [
            {
                "Contents": [
                    {"Key": key.partition("/")[2], "Size": size, "LastModified": now}
                    for key, size in self.objects.items()
                    if key.startswith(f"{Bucket}/{Prefix}")
                ]
            }
        ]

    def copy(self, source: dict[str, str], bucket: str, key: str, **_: Any) -> None:
        self.objects[f"{bucket}/{key}"] = self.objects[f"{source['Bucket']}/{source['Key']}"]

    def upload_file(self, path: str, bucket: str, key: str, **_: Any) -> None:
        self.objects[f"{bucket}/{key}"] = Path(path).stat().st_size


def test_a_root_is_what_all_places_are_below(tmp_path: Path) -> None:
    made = archive(tmp_path, experiment="s3://old/mlflow/1", run="s3://old/mlflow/1/abc/artifacts")
    (root,) = artifacts.roots(made, given={}, target="s3://new/imported/test")
    assert (root.old, root.at) == ("s3://old/mlflow", "s3://old/mlflow")
    assert root.new.startswith("s3://new/imported/test/")


def test_a_place_of_its_own_is_a_root_of_its_own(tmp_path: Path) -> None:
    made = archive(tmp_path, experiment="s3://a/own", run="s3://a/own/abc/artifacts", source="s3://b/model")
    found = artifacts.roots(made, given={}, target="s3://new")
    assert [root.old for root in found] == ["s3://a/own", "s3://b/model"]
    assert len({root.new for root in found}) == 2


def test_files_behind_a_server_are_where_the_operator_says(tmp_path: Path) -> None:
    made = archive(tmp_path, experiment="mlflow-artifacts:/1", run="mlflow-artifacts:/1/abc/artifacts")
    with pytest.raises(CannotRunError, match="ARTIFACTS=mlflow-artifacts:=s3://BUCKET/PREFIX"):
        artifacts.roots(made, given={}, target="s3://new")
    (root,) = artifacts.roots(made, given={"mlflow-artifacts:": "s3://real"}, target="s3://new")
    assert (root.old, root.at) == ("mlflow-artifacts:", "s3://real")


def test_what_the_source_serves_is_asked_for_run_by_run(tmp_path: Path) -> None:
    run = "mlflow-artifacts:/1/abc/artifacts"
    made = archive(tmp_path, experiment="mlflow-artifacts:/1", run=run, source=f"{run}/model")
    (root,) = artifacts.roots(made, given={}, target="s3://new", server="https://mlflow.example.com")
    assert (root.old, root.server, root.places) == ("mlflow-artifacts:", "https://mlflow.example.com", (run,))


def test_a_folder_of_runs_may_have_moved_and_only_its_artifacts_go(tmp_path: Path) -> None:
    folder = tmp_path / "mlruns"
    (folder / "1" / "abc" / "artifacts").mkdir(parents=True)
    (folder / "1" / "meta.yaml").write_text("a run's own")
    (folder / "1" / "abc" / "artifacts" / "model").write_text("12345")
    made = archive(tmp_path, experiment="/gone/mlruns/1", run="file:///gone/mlruns/1/abc/artifacts")
    found = artifacts.roots(made, given={}, target="s3://new", folder=folder)
    assert [root.at for root in found] == [str(folder), str(folder)]
    bucket = Bucket()
    copied = artifacts.copy(bucket, found[:1], say=lambda _: None)
    assert list(bucket.objects.values()) == [5]
    assert copied.document["bytes"] == {"there": 5, "here": 5, "differing": 0}


def test_what_is_here_is_not_copied_again_and_what_is_not_is_told() -> None:
    bucket = Bucket(**{"old/a/one": 1, "old/a/two": 2, "old/a/folder/": 0, "new/b/one": 1, "new/b/two": 3})
    roots = [Root(old="s3://old/a", at="s3://old/a", new="s3://new/b")]
    seen = artifacts.copy(bucket, roots, say=lambda _: None, dry_run=True)
    assert seen.document["files"] == {"there": 2, "here": 2, "differing": 1}
    said: list[str] = []
    copied = artifacts.copy(bucket, roots, say=said.append)
    assert said == ["s3://old/a: 2 files, 1 of them to copy from s3://old/a to s3://new/b"]
    assert copied.document["files"] == {"there": 2, "here": 2, "differing": 0}
    assert bucket.objects["new/b/two"] == 2
