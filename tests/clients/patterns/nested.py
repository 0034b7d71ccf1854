# mypy: ignore-errors
# Hyperparameter search as the documentation writes it: a parent run with child runs.
import mlflow
from mlflow import MlflowClient

mlflow.set_experiment("Nested-Runs")

with mlflow.start_run(run_name="parent") as parent:
    mlflow.log_param("search", "grid")
    children = []
    for depth in [2, 4, 8]:
        with mlflow.start_run(run_name=f"depth {depth}", nested=True) as child:
            mlflow.log_param("max_depth", depth)
            mlflow.log_metric("accuracy", 1 - 1 / depth)
            children.append(child.info.run_id)
    mlflow.log_metric("best_accuracy", 0.875)

found = mlflow.search_runs(
    experiment_names=["Nested-Runs"],
    filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'",
    order_by=["metrics.accuracy DESC"],
)
assert set(found["run_id"]) == set(children), found
assert found.iloc[0]["params.max_depth"] == "8", found
assert MlflowClient().get_run(parent.info.run_id).data.metrics == {"best_accuracy": 0.875}
