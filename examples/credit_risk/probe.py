"""Small checks of a deployment, each in a process of its own under one identity.

`python -m examples.credit_risk.probe NAME …` prints what it observed and exits with 0 if that is as it
should be, else with 1.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence

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


def overwrite(name: str, version: str) -> str:
    """Put other bytes in the place of the version's model file, as somebody with write access could."""
    from urllib.parse import urlsplit

    import boto3
    from mlflow import MlflowClient

    place = urlsplit(MlflowClient().get_model_version_download_uri(name, version))
    s3 = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)
    prefix = place.path.lstrip("/")
    found = s3.list_objects_v2(Bucket=place.netloc, Prefix=f"{prefix}/")["Contents"]
    key = next(each["Key"] for each in found if "model.skops" in each["Key"])
    s3.put_object(Bucket=place.netloc, Key=key, Body=b"not the model that was approved")
    return f"{key.removeprefix(prefix + '/')} of version {version} was overwritten in S3"


def _require(held: bool, otherwise: str) -> None:
    if not held:
        raise RuntimeError(otherwise)


_PROBES: Mapping[str, Callable[..., str]] = {
    "children": children,
    "refused-directly": refused_directly,
    "predicts-as": predicts_as,
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
