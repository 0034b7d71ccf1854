from __future__ import annotations

import pytest

from examples.credit_risk.data import TARGET, features, load
from examples.credit_risk.search import Candidate, choose, evaluate, judge
from examples.credit_risk.strategies import STRATEGIES
from examples.credit_risk.trusted_types import REASONS, TRUSTED_TYPES


def candidate(name: str, roc_auc: float) -> Candidate:
    return Candidate({"name": name}, {"cv_roc_auc": roc_auc}, (roc_auc,))


def test_best_cross_validated_candidate_is_chosen_and_of_equals_the_first() -> None:
    tried = [candidate("a", 0.7), candidate("b", 0.8), candidate("c", 0.8)]
    assert choose(tried).parameters == {"name": "b"}


def test_choice_without_candidates_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        choose([])


def test_same_seed_gives_the_same_figures() -> None:
    strategy, fitting = STRATEGIES["random-forest"], load().fitting.head(200)
    parameters = {"n_estimators": 3, "max_depth": 3}
    first, second = (evaluate(strategy, parameters, fitting, seed=5) for _ in range(2))
    assert first.fold_roc_auc == second.fold_roc_auc
    assert first.metrics["cv_log_loss"] == second.metrics["cv_log_loss"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_grid_has_at_least_twelve_combinations(name: str) -> None:
    combinations = STRATEGIES[name].combinations()
    assert len(combinations) >= 12
    assert len({str(each) for each in combinations}) == len(combinations)


@pytest.mark.parametrize("name", STRATEGIES)
def test_fitted_model_contains_only_trusted_types(name: str) -> None:
    import skops.io

    model = STRATEGIES[name].pipeline(STRATEGIES[name].combinations()[0], seed=0)
    rows = load().fitting.head(100)
    stored = skops.io.dumps(model.fit(features(rows), rows[TARGET]))
    assert set(skops.io.get_untrusted_types(data=stored)) <= set(TRUSTED_TYPES)


@pytest.mark.parametrize("name", TRUSTED_TYPES)
def test_trusted_type_exists_and_says_why(name: str) -> None:
    import importlib

    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)
    assert len(REASONS[name]) > 80


def test_judgement_of_a_model_that_learned_little_is_worse() -> None:
    data, strategy = load(), STRATEGIES["random-forest"]
    figures = []
    for rows in (data.fitting, data.only(60).fitting):
        model = strategy.pipeline({"n_estimators": 20, "max_depth": 8}, seed=0)
        figures.append(judge(model.fit(features(rows), rows[TARGET]), data.judging))
    assert figures[0]["test_roc_auc"] > figures[1]["test_roc_auc"] + 0.05
