"""What the browser shows: an experiment with three runs and their curves, and a model in production.

`python -m tests.browser.content log` runs as a contributor and `… promote` as an approver, each in the
environment that `python -m local env` prints, with nothing but stock MLflow.
"""

from __future__ import annotations

import math
import sys

EXPERIMENT = "credit-risk"
MODEL = "credit-risk"
METRIC = "validation_loss"
RUNS = {"shallow": 0.9, "balanced": 0.55, "deep": 0.7}
STEPS = 60


def curve(height: float) -> list[float]:
    """The metric of a run, step by step."""
    return [height * math.exp(-step / 15) + 0.2 for step in range(STEPS)]


def log() -> None:
    """Log the runs, and register the last two as versions of the model."""
    import mlflow
    from mlflow.entities import Metric
    from sklearn.linear_model import LogisticRegression

    mlflow.set_experiment(EXPERIMENT)
    client = mlflow.MlflowClient()
    for name, height in RUNS.items():
        with mlflow.start_run(run_name=name) as run:
            mlflow.log_params({"model": "logistic regression", "depth": name, "C": height})
            client.log_batch(
                run.info.run_id,
                metrics=[
                    Metric(METRIC, value, 1_760_000_000_000 + step, step)
                    for step, value in enumerate(curve(height))
                ],
            )
            if name == "shallow":
                continue
            model = LogisticRegression(C=height).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
            mlflow.sklearn.log_model(
                model, name="model", registered_model_name=MODEL, pip_requirements=["scikit-learn"]
            )


def promote() -> None:
    """Put version 2 into production, the way courses teach it and the way MLflow 3 does."""
    import mlflow

    client = mlflow.MlflowClient()
    client.transition_model_version_stage(MODEL, "2", "Production", archive_existing_versions=True)
    client.set_registered_model_alias(MODEL, "champion", "2")


if __name__ == "__main__":
    {"log": log, "promote": promote}[sys.argv[1]]()
