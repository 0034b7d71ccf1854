"""The artifacts of a restored database are copied here, and only then its URIs are rewritten."""

from __future__ import annotations

import argparse
import dataclasses
import uuid
from typing import Any

import pytest

from operations import relocate, task
from operations.errors import CannotRunError
from tests.object_store import ObjectStore
from tests.operations.answers import deployment

FILES = {"1/run/artifacts/MLmodel": b"flavors: {}", "sealed/churn/1/1/weights.bin": b"\x00" * 64}


def test_objects_come_from_the_replica_and_uris_move_from_where_they_were(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, asked = f"replica/{uuid.uuid4().hex}", []
    object_store.write_model(replica, FILES)
    base = deployment({"s3": object_store.client})
    outputs = {"ArtifactBucket": object_store.bucket, "OperationRelocate": base.outputs["OperationCount"]}
    here = dataclasses.replace(base, outputs=outputs)
    new = f"s3://{object_store.bucket}/relocated"

    def ran(_: Any, operation: str, *, arguments: list[str], follow: Any) -> dict[str, Any]:
        assert set(object_store.read("relocated")) >= set(FILES)
        asked.append((operation, arguments))
        return {"old": "s3://lost", "new": new, "rows": {"runs.artifact_uri": 7}}

    monkeypatch.setattr(task, "run", ran)
    copies = f"s3://{object_store.bucket}/{replica}"
    options = argparse.Namespace(old="s3://lost", copies=copies, dry_run=True)
    planned = relocate.run(here, options, lambda _: None)
    assert "2 files at" in planned.text
    assert asked == []
    options.dry_run = False
    done = relocate.run(here, options, lambda _: None)
    assert asked == [("Relocate", ["--old", "s3://lost", "--new", new])]
    assert f"2 files, 75 bytes, from {copies} are at {new}\nruns.artifact_uri: 7 rows" in done.text


def test_a_root_outside_of_s3_is_refused() -> None:
    with pytest.raises(CannotRunError, match="is not a place in S3"):
        relocate.run(
            deployment({}), argparse.Namespace(old="/mnt/x", copies=None, dry_run=False), lambda _: None
        )
