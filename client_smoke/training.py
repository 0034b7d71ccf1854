"""A real, small piece of machine learning: a random forest on scikit-learn's wine data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

TREES = (5, 10, 20, 40)
_SEED = 7


@dataclass(frozen=True)
class Training:
    """Two fitted forests, the larger one last, how accuracy grew with the trees, and unseen samples."""

    forest: Any
    larger_forest: Any
    accuracies: tuple[float, ...]
    samples: Any


@cache
def train() -> Training:
    """Fit forests of `TREES` sizes on three quarters of the data; deterministic, about a second."""
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
        forest=forests[-2],
        larger_forest=forests[-1],
        accuracies=tuple(float(forest.score(samples, sample_labels)) for forest in forests),
        samples=samples,
    )


def accuracy_plot(training: Training) -> Any:
    """A matplotlib figure of accuracy over trees, made without touching pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.plot(TREES, training.accuracies, marker="o")
    axes.set(xlabel="trees", ylabel="accuracy on unseen wine", title="smoke run")
    return figure
