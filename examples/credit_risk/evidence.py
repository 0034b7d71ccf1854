"""What somebody needs months later to understand and repeat the choice: plots, environment, code."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from sklearn.inspection import permutation_importance
from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay
from sklearn.pipeline import Pipeline

from examples.credit_risk.data import TARGET, features

_REPEATS = 5


def plots(model: Pipeline, judging: pd.DataFrame, *, seed: int) -> Mapping[str, Figure]:
    """Figures of the model on unseen rows, by file name; pyplot's global state is left alone."""
    return {
        "confusion_matrix.png": _confusion_matrix(model, judging),
        "roc_curve.png": _roc_curve(model, judging),
        "feature_importance.png": _feature_importance(model, judging, seed=seed),
    }


def _confusion_matrix(model: Pipeline, judging: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        judging[TARGET],
        model.predict(features(judging)),
        display_labels=["repaid", "defaulted"],
        cmap="Blues",
        colorbar=False,
        ax=axes,
    )
    axes.set_title(f"{len(judging)} applicants never seen in training")
    return figure


def _roc_curve(model: Pipeline, judging: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    RocCurveDisplay.from_predictions(
        judging[TARGET],
        model.predict_proba(features(judging))[:, 1],
        name="this model",
        plot_chance_level=True,
        ax=axes,
    )
    axes.set(title="Defaults found against false alarms", xlabel="false alarms", ylabel="defaults found")
    return figure


def _feature_importance(model: Pipeline, judging: pd.DataFrame, *, seed: int) -> Figure:
    # By permutation on the raw columns: it means the same for every strategy.
    measured = permutation_importance(
        model,
        features(judging),
        judging[TARGET],
        scoring="roc_auc",
        n_repeats=_REPEATS,
        random_state=seed,
    )
    order = measured.importances_mean.argsort()
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        features(judging).columns[order],
        measured.importances_mean[order],
        xerr=measured.importances_std[order],
        color="steelblue",
    )
    axes.set(title="What the model relies on", xlabel="ROC AUC lost when the column is shuffled")
    return figure


def environment() -> dict[str, object]:
    """Python, platform and every installed distribution with its version; no path and no variable."""
    installed = {each.metadata["Name"]: each.version for each in distributions() if each.metadata["Name"]}
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": dict(sorted(installed.items(), key=lambda item: item[0].lower())),
    }


def scripts() -> Mapping[str, str]:
    """The source of this example by file name."""
    return {file.name: file.read_text() for file in sorted(Path(__file__).parent.glob("*.py"))}
