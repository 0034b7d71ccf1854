"""Steps about experiments and runs."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from client_smoke.smoke import Smoke
from client_smoke.training import TREES, log_plot, train
from client_smoke.verdict import StepFailed
from client_smoke.wire import Traffic, watch

FILE_ARTIFACT = "files/evidence.bin"
PLOT_ARTIFACT = "plots/accuracy.png"
METRIC = "accuracy"
# Larger than all the API calls of a run together, so that where it went shows in the byte counts.
_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Experiment:
    """The experiment of this smoke run and its artifact root in S3."""

    id: str
    bucket: str
    prefix: str


@dataclass(frozen=True)
class LoggedRun:
    """The run, what its file artifact holds, and who was sent how much while it was logged."""

    id: str
    artifact_uri: str
    file_sha256: str
    file_bytes: int
    traffic: Traffic


def experiment_has_an_s3_root(smoke: Smoke) -> str:
    """Create the experiment; the server must place its artifacts in S3, not behind itself."""
    smoke.made_something = True
    identifier = smoke.mlflow.create_experiment(smoke.experiment_name)
    location: str = smoke.mlflow.get_experiment(identifier).artifact_location
    scheme, _, path = location.partition("://")
    bucket, _, prefix = path.partition("/")
    if scheme != "s3" or not bucket or not prefix:
        raise StepFailed(
            f"the experiment's artifact root is {location!r}",
            next_action="start the server with --no-serve-artifacts --default-artifact-root s3://BUCKET/",
        )
    smoke.remember(Experiment(id=identifier, bucket=bucket, prefix=prefix.rstrip("/")))
    return location


def run_is_logged(smoke: Smoke) -> str:
    """Log a training run with the calls that people use: params, stepped metrics, tags, a plot, a file."""
    import mlflow

    experiment = smoke.recall(Experiment)
    training = train()
    content = os.urandom(_FILE_BYTES)
    folder, file_name = FILE_ARTIFACT.split("/")
    path = smoke.scratch / file_name
    path.write_bytes(content)
    _ = smoke.mlflow  # points the fluent API at the target
    with (
        watch() as traffic,
        mlflow.start_run(experiment_id=experiment.id, run_name=smoke.model_name) as run,
    ):
        mlflow.log_params({"model": "random forest", "data": "wine", "smoke": smoke.identifier})
        mlflow.set_tags({"smoke": smoke.identifier, "stage of proof": "logged"})
        for trees, accuracy in zip(TREES, training.accuracies, strict=True):
            mlflow.log_metric(METRIC, accuracy, step=trees)
        log_plot(training, PLOT_ARTIFACT, smoke.scratch)
        mlflow.log_artifact(str(path), folder)
    stored = smoke.mlflow.get_run(run.info.run_id)
    if stored.info.status != "FINISHED":
        raise StepFailed(
            f"the run ended as {stored.info.status}, not FINISHED", next_action="look at the server's log"
        )
    if (
        stored.data.params.get("smoke") != smoke.identifier
        or stored.data.tags.get("smoke") != smoke.identifier
    ):
        raise StepFailed(
            "the run was read back without the parameters and tags that it was given",
            next_action="look at the server's log for failed log-batch calls",
        )
    smoke.remember(
        LoggedRun(
            id=run.info.run_id,
            artifact_uri=run.info.artifact_uri,
            file_sha256=hashlib.sha256(content).hexdigest(),
            file_bytes=len(content),
            traffic=traffic,
        )
    )
    return f"run {run.info.run_id}: 3 params, 2 tags, {len(TREES)} metric steps, a plot, a file of 1 MiB"


def metric_history_is_in_order(smoke: Smoke) -> str:
    """Every step comes back once, with its exact value, oldest first."""
    run = smoke.recall(LoggedRun)
    logged = list(zip(TREES, train().accuracies, strict=True))
    history = smoke.mlflow.get_metric_history(run.id, METRIC)
    seen = [(metric.step, metric.value) for metric in history]
    if seen != logged:
        raise StepFailed(
            f"logged {logged}, read back {seen}",
            next_action="compare with MLFLOW_AWS_FAST_PATH=off: the fast path must store what MLflow stores",
        )
    return " → ".join(f"{value:.2f}" for _, value in seen) + f" at steps {', '.join(map(str, TREES))}"


def search_finds_the_run(smoke: Smoke) -> str:
    """Search by parameter, tag and metric together finds this run and no other."""
    run = smoke.recall(LoggedRun)
    condition = (
        f"params.smoke = '{smoke.identifier}' and tags.smoke = '{smoke.identifier}' and metrics.{METRIC} > 0"
    )
    found = smoke.mlflow.search_runs([smoke.recall(Experiment).id], filter_string=condition)
    identifiers = [hit.info.run_id for hit in found]
    if identifiers != [run.id]:
        raise StepFailed(
            f"searching for {condition} found {identifiers or 'nothing'}, not run {run.id}",
            next_action="look at the server's log; if rows are missing, check the last migration",
        )
    latest = found[0].data.metrics[METRIC]
    if latest != train().accuracies[-1]:
        raise StepFailed(
            f"the latest {METRIC} is {latest}, not the last one logged ({train().accuracies[-1]})",
            next_action="compare with MLFLOW_AWS_FAST_PATH=off: latest metrics must follow the highest step",
        )
    return f"1 run by parameter, tag and metric; latest {METRIC} {latest:.2f}"
