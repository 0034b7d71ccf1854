"""Small checks of a deployment, each in a process of its own under one identity.

`python -m examples.credit_risk.probe NAME …` prints what it observed and exits with 0 if that is as it
should be, else with 1.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LEAST_CHILDREN = 12


def children(run_id: str) -> str:
    """The parent run has enough finished children, and none of them has a model."""
    import mlflow

    parent = mlflow.get_run(run_id)
    found = mlflow.search_runs(
        [parent.info.experiment_id],
        filter_string=f"tags.`mlflow.parentRunId` = '{run_id}'",
        output_format="list",
    )
    finished = [
        run for run in found if run.info.status == "FINISHED" and run.data.params and run.data.metrics
    ]
    logged = [run for run in found if run.outputs and run.outputs.model_outputs]
    _require(
        len(finished) == len(found) >= LEAST_CHILDREN, f"{len(finished)} of {len(found)} children finished"
    )
    _require(not logged, f"{len(logged)} children logged a model")
    return (
        f"{len(finished)} finished child runs, each with its parameters and metrics; one model, on the parent"
    )


def refused_directly(name: str, version: str) -> str:
    """The stock client's own calls, without any policy, are refused for this role."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client, codes = MlflowClient(), []
    attempts: tuple[Callable[[], object], ...] = (
        lambda: client.transition_model_version_stage(name, version, "Production"),
        lambda: client.set_registered_model_alias(name, "champion", version),
    )
    for attempt in attempts:
        try:
            attempt()
        except MlflowException as error:
            codes.append(str(error.error_code))
    _require(codes == ["PERMISSION_DENIED"] * 2, f"the server answered {codes or 'yes'}")
    _require(client.get_model_version(name, version).current_stage == "None", "the stage has changed")
    return "stage and alias: PERMISSION_DENIED by the server, nothing changed"


def predicts_as(name: str, version: str, stage: str, alias: str) -> str:
    """What the stage and the alias load predicts exactly as this version does, and as no other."""
    from mlflow import MlflowClient, pyfunc

    from examples.credit_risk import data as credit

    rows = credit.features(credit.load().judging)

    def predictions(uri: str) -> list[float]:
        return [float(each[1]) for each in pyfunc.load_model(uri).predict(rows)]

    expected = predictions(f"models:/{name}/{version}")
    for uri in (f"models:/{name}/{stage}", f"models:/{name}@{alias}"):
        _require(predictions(uri) == expected, f"{uri} predicts other than version {version}")
    for other in MlflowClient().search_model_versions(f"name='{name}'"):
        if str(other.version) != version:
            uri = f"models:/{name}/{other.version}"
            _require(predictions(uri) != expected, f"{uri} cannot be told from version {version}")
    return (
        f"models:/{name}/{stage} and @{alias} predict {len(rows)} rows as version {version}, and as no other"
    )


def sealed(name: str, version: str) -> str:
    """Clients load the version from its sealed copy, and S3 has each file as the manifest says."""
    from mlflow import MlflowClient

    from client_smoke.sealing import sealed_copy

    copy = sealed_copy(MlflowClient(), _s3(), name, version)
    return f"version {version} loads from {copy.where}: {copy.files} files, as its manifest and S3 say"


def sealed_is_refused(name: str, version: str) -> str:
    """IAM denies this role every write and delete on what the version loads."""
    from mlflow import MlflowClient

    from client_smoke.sealing import every_change_is_denied, sealed_copy

    s3 = _s3()
    return every_change_is_denied(s3, sealed_copy(MlflowClient(), s3, name, version), who="this role")


def run_is_refused(run_id: str) -> str:
    """The server refuses this role to make the run's figures better, and to delete it."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client, codes = MlflowClient(), []
    before = client.get_run(run_id).data.metrics
    attempts: tuple[Callable[[], object], ...] = (
        lambda: client.log_metric(run_id, "test_roc_auc", 0.999),
        lambda: client.set_tag(run_id, "mlflow.source.git.commit", "0" * 40),
        lambda: client.delete_run(run_id),
    )
    for attempt in attempts:
        try:
            attempt()
        except MlflowException as error:
            codes.append(str(error.error_code))
    _require(codes == ["PERMISSION_DENIED"] * len(attempts), f"the server answered {codes or 'yes'}")
    run = client.get_run(run_id)
    _require(run.data.metrics == before and run.info.lifecycle_stage == "active", "the run has changed")
    return (
        f"metric, tag and deletion: PERMISSION_DENIED by the server; test_roc_auc is still "
        f"{before['test_roc_auc']:.4f}"
    )


def overwrite(name: str, version: str) -> str:
    """Put other bytes in the place of the model file that was registered, as a contributor may."""
    from urllib.parse import urlsplit

    from mlflow import MlflowClient

    client, s3 = MlflowClient(), _s3()
    # The version is the server's sealed copy; what it was registered from stays named as its source.
    (model_id,) = re.findall("m-[0-9a-f]{32}", client.get_model_version(name, version).source)
    place = urlsplit(client.get_logged_model(model_id).artifact_location)
    prefix = place.path.lstrip("/")
    found = s3.list_objects_v2(Bucket=place.netloc, Prefix=f"{prefix}/")["Contents"]
    key = next(each["Key"] for each in found if "model.skops" in each["Key"])
    s3.put_object(Bucket=place.netloc, Key=key, Body=b"not the model that was approved")
    return f"s3://{place.netloc}/{key} was overwritten"


def _s3() -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)


def _require(held: bool, otherwise: str) -> None:
    if not held:
        raise RuntimeError(otherwise)


_PROBES: Mapping[str, Callable[..., str]] = {
    "children": children,
    "refused-directly": refused_directly,
    "predicts-as": predicts_as,
    "sealed": sealed,
    "sealed-is-refused": sealed_is_refused,
    "run-is-refused": run_is_refused,
    "overwrite": overwrite,
}


def main(argv: Sequence[str]) -> int:
    """Run one probe; returns 0 if it observed what it should."""
    warnings.filterwarnings("ignore")
    name, *arguments = argv
    try:
        observed = _PROBES[name](*arguments)
    except Exception as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    sys.stdout.write(f"{observed}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
