"""Deleted and overwritten objects come back from S3's former versions."""

from __future__ import annotations

import argparse
import dataclasses
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from operations import restore_artifacts
from operations.command import Report
from operations.deployment import Deployment
from operations.errors import CannotRunError
from tests.object_store import ObjectStore
from tests.operations.answers import deployment

FILES = {"MLmodel": b"flavors: {}", "data/weights.bin": b"\x00" * 4096}


@pytest.fixture
def here(object_store: ObjectStore) -> Deployment:
    base = deployment({"s3": object_store.client})
    return dataclasses.replace(base, outputs={"ArtifactBucket": object_store.bucket, "TrackingUrl": "unused"})


@pytest.fixture
def place() -> str:
    return f"restored/{uuid.uuid4().hex}"


def restore(here: Deployment, of: str, *, at: datetime | None = None, apply: bool = False) -> Report:
    options = argparse.Namespace(of=of, at=at, apply=apply)
    return restore_artifacts.run(here, options, lambda _: None)


def delete(store: ObjectStore, place: str) -> None:
    for path in FILES:
        store.client.delete_object(Bucket=store.bucket, Key=f"{place}/{path}")


def tick(s3: Any) -> datetime:
    """A time between what was written before and what is written after, in S3's whole seconds."""
    now = datetime.now(UTC)
    time.sleep(1 - now.microsecond / 1e6)
    between = datetime.now(UTC)
    time.sleep(1.01 - between.microsecond / 1e6)
    return between


def test_what_is_deleted_comes_back_and_a_second_restore_finds_nothing(
    object_store: ObjectStore, here: Deployment, place: str
) -> None:
    object_store.write_model(place, FILES)
    object_store.write_model(f"{place}0", {"other": b"not below it"})
    delete(object_store, place)
    object_store.client.delete_object(Bucket=object_store.bucket, Key=f"{place}0/other")
    assert object_store.read(place) == {}
    planned = restore(here, f"s3://{object_store.bucket}/{place}")
    assert "would be restored: 2 deleted and 0 overwritten objects, 4107 bytes" in planned.text
    assert object_store.read(place) == {}
    done = restore(here, place, apply=True)
    assert (done.document["deleted"], done.document["restored"], done.document["bytes"]) == (2, 2, 4107)
    assert object_store.read(place) == FILES
    assert object_store.read(f"{place}0") == {}
    assert restore(here, place, apply=True).document["restored"] == 0


def test_what_is_overwritten_comes_back_as_it_was_at_a_time_and_nothing_newer_goes(
    object_store: ObjectStore, here: Deployment, place: str
) -> None:
    object_store.write_model(place, FILES)
    then = tick(object_store.client)
    object_store.write_model(place, {"MLmodel": b"worse", "new": b"written since"})
    object_store.client.delete_object(Bucket=object_store.bucket, Key=f"{place}/data/weights.bin")
    assert restore(here, place).document["overwritten"] == 0
    done = restore(here, place, at=then, apply=True)
    assert (done.document["deleted"], done.document["overwritten"]) == (1, 1)
    assert object_store.read(place) == {**FILES, "new": b"written since"}
    assert restore(here, place, at=then, apply=True).document["restored"] == 0


def test_what_is_sealed_is_left_alone(object_store: ObjectStore, here: Deployment, place: str) -> None:
    sealed = f"sealed/{place}"
    object_store.write_model(sealed, FILES)
    delete(object_store, sealed)
    assert restore(here, sealed).document["deleted"] == 0


def test_a_time_that_s3_has_forgotten_and_another_bucket_are_refused(here: Deployment) -> None:
    with pytest.raises(CannotRunError, match="not within the last 90 days"):
        restore(here, "1", at=datetime.now(UTC) - timedelta(days=91))
    with pytest.raises(CannotRunError, match="is not in this deployment's bucket"):
        restore(here, "s3://another/1")


@pytest.mark.slow
def test_a_deleted_model_loads_again(
    object_store: ObjectStore,
    here: Deployment,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow
    import sklearn.linear_model

    store = f"sqlite:///{tmp_path}/mlflow.db"
    for name, value in {
        "AWS_ENDPOINT_URL": object_store.endpoint,
        "MLFLOW_S3_ENDPOINT_URL": object_store.endpoint,
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(store)
    experiment = mlflow.create_experiment(place, artifact_location=f"s3://{object_store.bucket}/{place}")
    with mlflow.start_run(experiment_id=experiment) as run:
        model = sklearn.linear_model.LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
        mlflow.sklearn.log_model(
            model, name="model", registered_model_name="priced", pip_requirements=["scikit-learn"]
        )
        mlflow.log_text("a note", "note.txt")
    site = dataclasses.replace(here, outputs={**here.outputs, "TrackingUrl": store})
    location = mlflow.MlflowClient().search_logged_models([experiment])[0].artifact_location
    everything = object_store.read(place)
    for path in everything:
        object_store.client.delete_object(Bucket=object_store.bucket, Key=f"{place}/{path}")
    with pytest.raises(mlflow.MlflowException):
        mlflow.sklearn.load_model("models:/priced/1")
    done = restore(site, "models:/priced/1", apply=True)
    assert done.document["prefix"] == location.removeprefix(f"s3://{object_store.bucket}/")
    assert mlflow.sklearn.load_model("models:/priced/1").predict([[2.0]]) == pytest.approx([5.0])
    assert restore(site, f"runs:/{run.info.run_id}", apply=True).document["restored"] == 1
    assert object_store.read(place) == everything
