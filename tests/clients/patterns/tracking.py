# ruff: noqa: PTH118, PTH123
# mypy: ignore-errors
# The tracking quickstart: experiment, run, parameters, metrics, tags, artifacts, and finding them again.
import os
import tempfile

import mlflow
from mlflow import MlflowClient

mlflow.set_experiment("Default-Tracking-Quickstart")

with mlflow.start_run(run_name="first run") as run:
    mlflow.log_param("alpha", 0.5)
    mlflow.log_params({"l1_ratio": 0.1, "solver": "lbfgs"})
    for epoch in range(5):
        mlflow.log_metric("loss", 1 / (epoch + 1), step=epoch)
    mlflow.log_metrics({"rmse": 0.78, "r2": 0.11})
    mlflow.set_tag("Training Info", "Basic LR model")
    mlflow.set_tags({"team": "risk", "stage": "exploration"})

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "features.txt")
        with open(path, "w") as f:
            f.write("rooms, zipcode, median_price, school_rating, transport")
        mlflow.log_artifact(path)
        mlflow.log_artifacts(folder, artifact_path="outputs")
    mlflow.log_text("hello", "notes/hello.txt")
    mlflow.log_dict({"a": [1, 2]}, "notes/data.json")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    ax.plot([0, 1], [2, 3])
    mlflow.log_figure(fig, "figure.png")

client = MlflowClient()
data = client.get_run(run.info.run_id).data
assert data.params == {"alpha": "0.5", "l1_ratio": "0.1", "solver": "lbfgs"}, data.params
assert data.metrics == {"loss": 0.2, "rmse": 0.78, "r2": 0.11}, data.metrics
assert data.tags["Training Info"] == "Basic LR model"
history = client.get_metric_history(run.info.run_id, "loss")
assert [metric.step for metric in history] == [0, 1, 2, 3, 4], history

names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
assert names == {"features.txt", "outputs", "notes", "figure.png"}, names
assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/hello.txt") == "hello"

best = mlflow.search_runs(
    experiment_names=["Default-Tracking-Quickstart"],
    filter_string="metrics.rmse < 1 and params.alpha = '0.5'",
    order_by=["metrics.rmse ASC"],
)
assert run.info.run_id in set(best["run_id"])

# The same through the client, without an active run.
experiment = client.get_experiment_by_name("Default-Tracking-Quickstart")
bare = client.create_run(experiment.experiment_id)
client.log_param(bare.info.run_id, "by", "client")
client.log_metric(bare.info.run_id, "m", 1.0)
client.set_terminated(bare.info.run_id)
assert client.get_run(bare.info.run_id).info.status == "FINISHED"
