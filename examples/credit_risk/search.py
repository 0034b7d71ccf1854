"""The search: judge each combination by cross-validation, choose one, and judge that once on unseen rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.pipeline import Pipeline

from examples.credit_risk.data import TARGET, features
from examples.credit_risk.strategies import Parameters, Strategy

FOLDS = 3
_SCORES = {"roc_auc": "roc_auc", "average_precision": "average_precision", "log_loss": "neg_log_loss"}


@dataclass(frozen=True)
class Candidate:
    """One combination, what cross-validation says of it, and ROC AUC fold by fold."""

    parameters: Parameters
    metrics: dict[str, float]
    fold_roc_auc: tuple[float, ...]


def evaluate(strategy: Strategy, parameters: Parameters, fitting: pd.DataFrame, *, seed: int) -> Candidate:
    """Cross-validate one combination; the held-out rows are not touched."""
    scored = cross_validate(
        strategy.pipeline(parameters, seed=seed),
        features(fitting),
        fitting[TARGET],
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
        scoring=list(_SCORES.values()),
    )
    folds = {name: np.abs(scored[f"test_{scorer}"]) for name, scorer in _SCORES.items()}
    return Candidate(
        parameters=parameters,
        metrics={
            **{f"cv_{name}": float(values.mean()) for name, values in folds.items()},
            "cv_roc_auc_std": float(folds["roc_auc"].std()),
            "fit_seconds": float(scored["fit_time"].mean()),
        },
        fold_roc_auc=tuple(float(value) for value in folds["roc_auc"]),
    )


def choose(candidates: Iterable[Candidate]) -> Candidate:
    """The one with the best cross-validated ROC AUC; of equals the first. ValueError if there is none."""
    return max(candidates, key=lambda candidate: candidate.metrics["cv_roc_auc"])


def judge(model: Pipeline, judging: pd.DataFrame) -> dict[str, float]:
    """What the model is worth on rows it has never seen; the figures that promotion policies compare."""
    truth = judging[TARGET]
    probability = model.predict_proba(features(judging))[:, 1]
    verdict = model.predict(features(judging))
    return {
        "test_roc_auc": float(roc_auc_score(truth, probability)),
        "test_average_precision": float(average_precision_score(truth, probability)),
        "test_log_loss": float(log_loss(truth, probability)),
        "test_brier": float(brier_score_loss(truth, probability)),
        "test_accuracy": float(accuracy_score(truth, verdict)),
        "test_f1": float(f1_score(truth, verdict)),
        "test_precision": float(precision_score(truth, verdict, zero_division=0)),
        "test_recall": float(recall_score(truth, verdict)),
    }
