"""What the browser shows: an experiment with three runs and their curves, and a model in production.

`python -m tests.browser.content log` and `… document` run as a contributor and `… promote` as an approver,
each in the environment that `python -m local env` prints, with nothing but stock MLflow.
"""

from __future__ import annotations

import math
import sys

EXPERIMENT = "credit-risk"
MODEL = "credit-risk"
METRIC = "validation_loss"
RUNS = {"shallow": 0.9, "balanced": 0.55, "deep": 0.7}
STEPS = 60
DOCUMENTED = "shallow"
DOWNLOADS = "downloads"
NOTE = "what we saw"
LARGE = 11 * 2**20
PROMPT = "greeting"
# What a report does: a script inside the page. And what it should not reach.
REPORT = """<!doctype html><p id=out></p><script>
let reached = "kept out";
try { reached = parent.document.title + localStorage.length; } catch (error) {}
document.getElementById("out").textContent = `drawn by a script, ${reached}`;
</script>"""


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


def document() -> None:
    """Give a run artifacts of each kind that has a preview, a trace, and register a prompt."""
    import mlflow
    import numpy as np

    experiment = mlflow.set_experiment(EXPERIMENT)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([experiment.experiment_id], f"run_name = '{DOCUMENTED}'")
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_text("plain words", "notes.txt")
        mlflow.log_text("a,b\n1,2\n", "table.csv")
        mlflow.log_dict({"key": "of the dictionary"}, "config.json")
        mlflow.log_text(REPORT, "report.html")
        mlflow.log_text("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "drawing.svg")
        mlflow.log_image(np.zeros((9, 9, 3), dtype=np.uint8), artifact_file="picture.png")
    with mlflow.start_span(name="answer") as span:
        span.set_inputs({"question": "what is asked"})
        span.set_outputs("what is answered")
    mlflow.flush_trace_async_logging()
    mlflow.genai.register_prompt(PROMPT, "Hello {{name}}")


def download() -> None:
    """Log a small file, and one that is too large for the server to send it to a browser itself."""
    import mlflow

    mlflow.set_experiment(DOWNLOADS)
    with mlflow.start_run():
        mlflow.log_text(NOTE, "note.txt")
        mlflow.log_text("0" * LARGE, "large.txt")


if __name__ == "__main__":
    {"log": log, "document": document, "promote": promote, "download": download}[sys.argv[1]]()
