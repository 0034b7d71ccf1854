"""A real, small piece of machine learning: a random forest on scikit-learn's wine data.

Where scikit-learn is not installed, as in the server's image, a rule of one line takes the forest's place.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TREES = (5, 10, 20, 40)
_SEED = 7
# One white pixel.
_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsVBH7wAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Training:
    """Two fitted forests, the larger one last, how accuracy grew with the trees, and unseen samples.

    `flavor` is MLflow's for such models.
    """

    flavor: Any
    forest: Any
    larger_forest: Any
    accuracies: tuple[float, ...]
    samples: Any


@cache
def train() -> Training:
    """Fit forests of `TREES` sizes on three quarters of the data; deterministic, about a second."""
    if find_spec("sklearn") is None:
        return _without_scikit_learn()
    import mlflow.sklearn
    from sklearn.datasets import load_wine
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import train_test_split

    features, labels = load_wine(return_X_y=True)
    known, samples, known_labels, sample_labels = train_test_split(
        features, labels, random_state=_SEED, stratify=labels
    )
    forests = [
        RandomForestClassifier(n_estimators=trees, random_state=_SEED).fit(known, known_labels)
        for trees in TREES
    ]
    return Training(
        flavor=mlflow.sklearn,
        forest=forests[-2],
        larger_forest=forests[-1],
        accuracies=tuple(float(forest.score(samples, sample_labels)) for forest in forests),
        samples=samples,
    )


def log_plot(training: Training, artifact: str, scratch: Path) -> None:
    """Log a matplotlib figure of accuracy over trees, made without touching pyplot's global state.

    Without matplotlib, any picture.
    """
    import mlflow

    if find_spec("matplotlib") is None:
        folder, _, name = artifact.rpartition("/")
        (scratch / name).write_bytes(_PNG)
        mlflow.log_artifact(str(scratch / name), folder)
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot(TREES, training.accuracies, marker="o")
    axes.set(xlabel="trees", ylabel="accuracy on unseen wine", title="smoke run")
    mlflow.log_figure(figure, artifact)


def _without_scikit_learn() -> Training:
    import mlflow
    import pandas

    class Threshold(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Says whether a number is larger than its own."""

        def __init__(self, number: float) -> None:
            self.number = number

        def predict(self, model_input: Any) -> Any:
            return [value > self.number for value in model_input["value"]]

    def log_model(model: Any, **given: Any) -> Any:
        # Finding them out takes a second process, and many seconds.
        requirements = {"pip_requirements": [f"mlflow=={mlflow.__version__}"]}
        return mlflow.pyfunc.log_model(python_model=model, **requirements | given)

    return Training(
        flavor=SimpleNamespace(log_model=log_model),
        forest=Threshold(3.0),
        larger_forest=Threshold(5.0),
        accuracies=(0.5, 0.625, 0.75, 0.875),
        samples=pandas.DataFrame({"value": [float(number) for number in range(10)]}),
    )
