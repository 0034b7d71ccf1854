"""What a team wrote in a year, by whichever client runs this: `python written.py`, with MLFLOW_TRACKING_URI.

Old clients run it as a script, so it needs nothing but MLflow and scikit-learn, and asks what they can do.
"""

from __future__ import annotations

import math
import time
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

IS_3 = mlflow.__version__.startswith("3.")
# Servers before 3.2 keep none.
KEEPS_FEEDBACK = IS_3 and not mlflow.__version__.startswith(("3.0.", "3.1."))
# Yesterday, to the millisecond, so that no point lies in the future.
BEGAN = int(time.time() * 1000) - 86_400_000
CURVE_POINTS = 5000
UNUSUAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1.7976931348623157e308, -1.5)


def main() -> None:
    client = MlflowClient()
    credit = client.create_experiment("Credit risk", tags={"team": "risk", "mlflow.note.content": "# Größe"})
    runs(client, credit)
    deleted(client)
    registry(client, credit)
    if hasattr(mlflow, "start_span"):
        traces(client)
    if IS_3:
        logged_models(client)


def runs(client: MlflowClient, experiment: str) -> None:
    parent = begin(
        client, experiment, "parent ✓", {"mlflow.source.name": "train.py", "free text": "a'b\"c\\d\te"}
    )
    curve(client, parent, "loss", CURVE_POINTS)
    unusual(client, parent)
    client.log_batch(
        parent, params=[Param("learning_rate", "0.1"), Param("empty", ""), Param("long", "x" * 500)]
    )
    for number in range(3):
        child = begin(client, experiment, f"child {number}", {"mlflow.parentRunId": parent})
        curve(client, child, "train/auc", 200)
        client.log_param(child, "depth", number)
        dataset(client, child, number)
        grandchild = begin(client, experiment, f"fold {number}", {"mlflow.parentRunId": child})
        client.set_terminated(grandchild, status=("FINISHED", "FAILED", "KILLED")[number])
        client.set_terminated(child)
    client.log_text(parent, "An artifact.\n", "notes/read me.txt")
    client.set_terminated(parent)
    begin(client, experiment, "still running", {"mlflow_aws.principal": "arn:aws:iam::1:role/forged"})
    gone = begin(client, experiment, "deleted", {})
    client.log_metric(gone, "loss", 1.0)
    client.delete_run(gone)


def begin(client: MlflowClient, experiment: str, name: str, tags: dict[str, str]) -> str:
    run = client.create_run(
        experiment, start_time=BEGAN, run_name=name, tags={"mlflow.user": "alice", **tags}
    )
    return str(run.info.run_id)


def curve(client: MlflowClient, run: str, key: str, points: int) -> None:
    for first in range(0, points, 1000):
        client.log_batch(
            run,
            metrics=[
                Metric(key, round(math.exp(-step / 500), 4), BEGAN + 10 * step, step)
                for step in range(first, min(first + 1000, points))
            ],
        )


def unusual(client: MlflowClient, run: str) -> None:
    """Values, steps and times that a column, a primary key or an order could lose."""
    client.log_batch(
        run,
        metrics=[
            *(Metric("unusual", value, BEGAN, step) for step, value in enumerate(UNUSUAL)),
            *(Metric("negative steps", 1.0, BEGAN + step, -step) for step in range(5)),
            *(Metric("equal steps and times", value / 8, BEGAN, 7) for value in range(5)),
        ],
        tags=[RunTag("long", "ü" * 4000)],
    )


def dataset(client: MlflowClient, run: str, number: int) -> None:
    client.log_inputs(
        run,
        [
            DatasetInput(
                Dataset(
                    name="loans",
                    digest=f"{number % 2:08x}",
                    source_type="s3",
                    source='{"uri": "s3://example/loans.parquet"}',
                    schema='{"mlflow_colspec": [{"type": "double", "name": "income"}]}',
                    profile='{"num_rows": 3}',
                ),
                tags=[InputTag("mlflow.data.context", ("training", "eval", "test")[number])],
            )
        ],
    )


def deleted(client: MlflowClient) -> None:
    experiment = client.create_experiment("Gone")
    run = begin(client, experiment, "of a deleted experiment", {})
    client.log_metric(run, "loss", 2.0)
    client.delete_experiment(experiment)


def registry(client: MlflowClient, experiment: str) -> None:
    client.create_registered_model("credit", tags={"owner": "risk"}, description="Says **no**.")
    for number in range(4):
        with mlflow.start_run(experiment_id=experiment, run_name=f"train {number}") as run:
            log_model(number)
        # As clients of different times wrote it.
        source = f"{run.info.artifact_uri}/model" if number % 2 else f"runs:/{run.info.run_id}/model"
        version = client.create_model_version(
            "credit",
            source,
            run.info.run_id,
            tags={"number": str(number)},
            description=f"Number {number}",
        ).version
        stage(client, "credit", version, ("Archived", "Production", "Staging", "None")[number])
    client.delete_model_version("credit", "4")
    if hasattr(client, "set_registered_model_alias"):
        client.set_registered_model_alias("credit", "champion", "2")
        client.set_registered_model_alias("credit", "challenger", "3")
    client.create_registered_model("empty model")
    client.create_registered_model("deleted model")
    client.delete_registered_model("deleted model")
    client.create_registered_model("old name")
    client.rename_registered_model("old name", "renamed")
    client.create_model_version("renamed", "s3://example/elsewhere/model")


def log_model(number: int) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 + number).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    # Named requirements: inferring them takes a process and seconds.
    name: dict[str, Any] = {"name": "model"} if IS_3 else {"artifact_path": "model"}
    mlflow.sklearn.log_model(model, **name, pip_requirements=["scikit-learn"])


def stage(client: MlflowClient, model: str, version: str, name: str) -> None:
    try:
        client.transition_model_version_stage(model, version, name)
    except MlflowException as error:
        raise SystemExit(f"{mlflow.__version__} has no stages any more: {error}") from error


def traces(client: MlflowClient) -> None:
    mlflow.set_experiment("Assistant")
    for number in range(3):
        with mlflow.start_span("answer") as span:
            span.set_inputs({"question": f"Why {number}?"})
            with mlflow.start_span("retrieve") as inner:
                inner.set_attribute("documents", 3)
            span.set_outputs({"answer": "Because."})
        trace = span.request_id
        client.set_trace_tag(trace, "reviewed", "yes")
        if KEEPS_FEEDBACK:
            mlflow.log_feedback(trace_id=trace, name="correct", value=number != 1, rationale="Read it.")
    try:
        with mlflow.start_span("fails"):
            raise ValueError("no answer")
    except ValueError:
        pass
    if hasattr(mlflow, "flush_trace_async_logging"):
        mlflow.flush_trace_async_logging()


def logged_models(client: MlflowClient) -> None:
    mlflow.set_experiment("Assistant")
    with mlflow.start_run(run_name="evaluates a model"):
        model = mlflow.initialize_logged_model(
            name="agent", params={"temperature": "0"}, tags={"kind": "external"}, model_type="agent"
        )
        mlflow.log_metric("quality", 0.75, step=3, model_id=model.model_id)
        client.finalize_logged_model(model.model_id, "READY")
    failed = client.create_logged_model(
        experiment_id=mlflow.get_experiment_by_name("Assistant").experiment_id, name="failed"
    )
    client.finalize_logged_model(failed.model_id, "FAILED")


if __name__ == "__main__":
    main()
