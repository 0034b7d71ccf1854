"""The last promise: nothing stays behind but what is said to stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from client_smoke.smoke import Smoke
from client_smoke.verdict import PromiseBroken

_GC = "the deployment's housekeeping (`mlflow gc`) deletes it for good"
_BATCH = 1000


def nothing_stays_behind(smoke: Smoke) -> str:
    """Delete, by name, all that this run can have made, and look again whether it is gone.

    A client can mark experiments and runs deleted, remove registered models, and delete current objects if
    its role permits. What only the deployment can finish is listed in `smoke.remains`.
    """
    _delete_registered_model(smoke)
    experiment = smoke.mlflow.get_experiment_by_name(smoke.experiment_name)
    if experiment is None:
        return "no experiment was created"
    objects = _delete_objects(smoke, experiment.artifact_location)
    for run in smoke.mlflow.search_runs([experiment.experiment_id]):
        smoke.mlflow.delete_run(run.info.run_id)
    if experiment.lifecycle_stage == "active":
        smoke.mlflow.delete_experiment(experiment.experiment_id)
    _look_again(smoke, experiment.experiment_id)
    smoke.remains.append(f"experiment {experiment.experiment_id} is marked deleted; {_GC}")
    return f"model removed, experiment {experiment.experiment_id} and its runs marked deleted, {objects}"


def what_is_kept(smoke: Smoke) -> str:
    """What `--keep` leaves on the server, by name."""
    return f"experiment and registered model {smoke.experiment_name}, with their artifacts"


def _delete_registered_model(smoke: Smoke) -> None:
    if _registered_model_exists(smoke):
        smoke.mlflow.delete_registered_model(smoke.model_name)


def _registered_model_exists(smoke: Smoke) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        smoke.mlflow.get_registered_model(smoke.model_name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def _delete_objects(smoke: Smoke, location: str) -> str:
    from botocore.exceptions import ClientError

    scheme, _, path = location.partition("://")
    bucket, _, prefix = path.partition("/")
    if scheme != "s3" or not prefix.strip("/"):
        smoke.remains.append(f"artifacts under {location}, which is not an S3 prefix; {_GC}")
        return "artifacts left"
    prefix = prefix.rstrip("/") + "/"
    try:
        found = list(_objects(smoke, bucket, prefix))
        refused = [
            error
            for start in range(0, len(found), _BATCH)
            for error in _delete_batch(smoke, bucket, found[start : start + _BATCH])
        ]
        left = len(list(_objects(smoke, bucket, prefix)))
    except ClientError as error:
        code = error.response["Error"]["Code"]
        smoke.remains.append(f"artifacts under {location}: S3 answered {code} to this role; {_GC}")
        return f"artifacts left ({code})"
    if refused:
        code = refused[0].get("Code", "an error")
        smoke.remains.append(f"{left} objects under {location}: S3 answered {code} to this role; {_GC}")
        return f"{left} artifacts left ({code})"
    if left:
        raise PromiseBroken(
            f"{left} objects are still under {location} after S3 accepted their deletion",
            next_action=f"look for another writer, then delete them: aws s3 rm --recursive {location}",
        )
    if found:
        smoke.remains.append(
            f"noncurrent versions of {len(found)} objects under {location}; the bucket's lifecycle rule for "
            "noncurrent versions expires them"
        )
    return f"{len(found)} objects deleted"


def _objects(smoke: Smoke, bucket: str, prefix: str) -> Iterator[str]:
    pages = smoke.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        yield from (entry["Key"] for entry in page.get("Contents", ()))


def _delete_batch(smoke: Smoke, bucket: str, keys: list[str]) -> list[dict[str, Any]]:
    answer = smoke.s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
    )
    errors: list[dict[str, Any]] = answer.get("Errors", [])
    return errors


def _look_again(smoke: Smoke, experiment_id: str) -> None:
    stage = smoke.mlflow.get_experiment(experiment_id).lifecycle_stage
    if stage != "deleted":
        raise PromiseBroken(
            f"experiment {experiment_id} is {stage} after its deletion",
            next_action=f"delete it by hand: mlflow experiments delete -x {experiment_id}",
        )
    runs = smoke.mlflow.search_runs([experiment_id])
    if runs:
        raise PromiseBroken(
            f"{len(runs)} runs of experiment {experiment_id} are still active",
            next_action=f"delete them by hand: mlflow runs delete --run-id {runs[0].info.run_id}",
        )
    if _registered_model_exists(smoke):
        raise PromiseBroken(
            f"registered model {smoke.model_name} still exists after its deletion",
            next_action="delete it in the UI and look at the server's log",
        )
