"""The strategies: what each fits, and the grid that is searched for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from examples.credit_risk.data import CATEGORIES, NUMBERS

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Strategy:
    """One way to foresee a default: a classifier and the values to try for its parameters."""

    name: str
    classifier: Callable[..., Any]
    grid: Mapping[str, Sequence[Any]]

    @property
    def experiment(self) -> str:
        """The MLflow experiment that holds all runs of this strategy."""
        return f"credit-risk/{self.name}"

    def combinations(self) -> list[Parameters]:
        """Every combination of the grid, always in the same order."""
        return [dict(combination) for combination in ParameterGrid(dict(self.grid))]

    def pipeline(self, parameters: Parameters, *, seed: int) -> Pipeline:
        """An unfitted model: it takes the raw columns, so that nobody prepares them to predict."""
        columns = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), list(CATEGORIES)),
            (StandardScaler(), list(NUMBERS)),
        )
        return Pipeline(
            [("columns", columns), ("classifier", self.classifier(random_state=seed, **parameters))]
        )


def _logistic_regression(**parameters: Any) -> LogisticRegression:
    return LogisticRegression(max_iter=2000, **parameters)


STRATEGIES: Mapping[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "logistic-regression",
            _logistic_regression,
            {"C": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), "class_weight": (None, "balanced")},
        ),
        Strategy(
            "random-forest",
            RandomForestClassifier,
            {"n_estimators": (25, 75), "max_depth": (4, 8, 14), "min_samples_leaf": (2, 8)},
        ),
        Strategy(
            "gradient-boosting",
            GradientBoostingClassifier,
            {"n_estimators": (20, 50), "max_depth": (1, 2, 4), "learning_rate": (0.05, 0.2)},
        ),
    )
}
