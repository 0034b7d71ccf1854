"""The last step: nothing stays behind but what is said to stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from client_smoke.explain import explain
from client_smoke.sealing import SEAL
from client_smoke.smoke import Smoke
from client_smoke.verdict import StepFailed

_GC = "`mlflow gc` deletes it for good"
_BATCH = 1000


def nothing_stays_behind(smoke: Smoke) -> str:
    """Delete, by name, all that this run can have made, and look again whether it is gone.

    A client can remove registered models, mark experiments, runs and logged models deleted, and delete
    current objects if its role permits. What only the deployment can finish is listed in `smoke.remains`.
    One part that fails does not keep the others from being tried.
    """
    parts: list[Callable[[Smoke], str]] = [_remove_registered_model, _remove_experiment]
    done, failures = [], []
    for part in parts:
        try:
            done.append(part(smoke))
        except Exception as error:
            failures.append(explain(error))
    if failures:
        raise StepFailed("; ".join(failure.seen for failure in failures), next_action=failures[0].next_action)
    return ", ".join(done)


def what_is_kept(smoke: Smoke) -> str:
    """What stays on the server by name when nothing is removed."""
    return f"experiment and registered model {smoke.experiment_name}, with their artifacts"


def _remove_registered_model(smoke: Smoke) -> str:
    if not _registered_model_exists(smoke):
        return "no model was registered"
    sealed = sorted(
        f"s3://{seal['bucket']}/{seal['prefix']}"
        for version in smoke.mlflow.search_model_versions(f"name = '{smoke.model_name}'")
        if (seal := json.loads(version.tags.get(SEAL, "null")))
    )
    if not may(smoke, lambda: smoke.mlflow.delete_registered_model(smoke.model_name)):
        smoke.remains.append(f"registered model {smoke.model_name}; an approver or admin may delete it")
        return "registered model left, which this role may not delete"
    if _registered_model_exists(smoke):
        raise StepFailed(
            f"registered model {smoke.model_name} still exists after its deletion",
            next_action="delete it in the UI and look at the server's log",
        )
    if sealed:
        smoke.remains.append(
            f"sealed copies, which only the deployment's break-glass role may delete: {', '.join(sealed)}"
        )
    return "registered model removed"


def _registered_model_exists(smoke: Smoke) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        smoke.mlflow.get_registered_model(smoke.model_name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def _remove_experiment(smoke: Smoke) -> str:
    experiment = smoke.mlflow.get_experiment_by_name(smoke.experiment_name)
    if experiment is None:
        return "no experiment was created"
    identifier: str = experiment.experiment_id
    objects = delete_objects(smoke, experiment.artifact_location)
    # MLflow marks an experiment's runs with it, not its logged models; `mlflow gc` takes marked ones only.
    if not may(smoke, lambda: _mark_deleted(smoke, identifier, experiment.lifecycle_stage)):
        smoke.remains.append(f"experiment {identifier}; an approver or admin may delete it")
        return f"experiment {identifier} left, which this role may not delete, {objects}"
    stage = smoke.mlflow.get_experiment(identifier).lifecycle_stage
    if stage != "deleted" or smoke.mlflow.search_runs([identifier]):
        raise StepFailed(
            f"experiment {identifier} is {stage} after its deletion, or has runs that are still active",
            next_action=f"delete it by hand: mlflow experiments delete -x {identifier}",
        )
    smoke.remains.append(f"experiment {identifier}, marked deleted; {_GC}")
    return f"experiment {identifier} with its runs and models marked deleted, {objects}"


def _mark_deleted(smoke: Smoke, identifier: str, stage: str) -> None:
    for model in smoke.mlflow.search_logged_models([identifier]):
        smoke.mlflow.delete_logged_model(model.model_id)
    if stage == "active":
        smoke.mlflow.delete_experiment(identifier)


def may(smoke: Smoke, remove: Callable[[], None]) -> bool:
    """Remove as the caller, or else as the approver whose token was given; False if neither may."""
    from mlflow.exceptions import MlflowException

    identities: list[AbstractContextManager[None]] = [nullcontext()]
    if smoke.tokens.approver is not None:
        identities.append(smoke.acting_as(smoke.tokens.approver))
    for identity in identities:
        try:
            with identity:
                remove()
        except MlflowException as error:
            if error.error_code != "PERMISSION_DENIED":
                raise
        else:
            return True
    return False


def delete_objects(smoke: Smoke, location: str) -> str:
    """Delete the current objects below a place in S3; says what became of them."""
    from botocore.exceptions import ClientError

    scheme, _, path = location.partition("://")
    bucket, _, prefix = path.partition("/")
    if scheme != "s3" or not prefix.strip("/"):
        smoke.remains.append(f"artifacts under {location}, which is not an S3 prefix; {_GC}")
        return "artifacts left"
    prefix = prefix.rstrip("/") + "/"
    try:
        found = list(_objects(smoke, bucket, prefix))
        batches = [found[start : start + _BATCH] for start in range(0, len(found), _BATCH)]
        refused = [error for batch in batches for error in _delete_batch(smoke, bucket, batch)]
        left = len(list(_objects(smoke, bucket, prefix)))
    except ClientError as error:
        code = error.response["Error"]["Code"]
        smoke.remains.append(f"artifacts under {location} (S3 answered {code} to this role); {_GC}")
        return f"artifacts left ({code})"
    if refused:
        code = refused[0].get("Code", "an error")
        smoke.remains.append(f"{left} objects under {location} (S3 answered {code} to this role); {_GC}")
        return f"{left} objects left ({code})"
    if left:
        raise StepFailed(
            f"{left} objects are still under {location} after S3 accepted their deletion",
            next_action=f"look for another writer, then delete them: aws s3 rm --recursive {location}",
        )
    if found:
        smoke.remains.append(
            f"old versions of {len(found)} objects under {location}, until the bucket's lifecycle rule for "
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
