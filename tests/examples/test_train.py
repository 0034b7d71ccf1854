"""What a training leaves behind for whoever looks later: structure, figures, evidence, one version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.credit_risk.data import CSV, TARGET, features, load, snapshot
from examples.credit_risk.strategies import STRATEGIES
from tests.examples.conftest import Store, Training, working_in

_STRATEGY = STRATEGIES["logistic-regression"]


def runs(training: Training) -> list[Any]:
    client = training.store.client
    experiment = client.get_experiment_by_name(training.result.experiment)
    return list(client.search_runs([experiment.experiment_id]))


def parent(training: Training) -> Any:
    return training.store.client.get_run(training.result.run_id)


def children(training: Training) -> list[Any]:
    return [training.store.client.get_run(run_id) for run_id in training.result.children]


def artifacts(training: Training, folder: str = "") -> set[str]:
    listed = training.store.client.list_artifacts(training.result.run_id, folder or None)
    return {Path(each.path).name for each in listed}


def evidence(training: Training, name: str) -> Any:
    from mlflow.artifacts import load_dict

    return load_dict(f"{parent(training).info.artifact_uri}/evidence/{name}")


def test_one_parent_has_a_child_for_every_combination(training: Training) -> None:
    tried = [
        {name: str(value) for name, value in combination.items()} for combination in _STRATEGY.combinations()
    ]
    assert [child.data.params for child in children(training)] == tried
    assert {child.data.tags["mlflow.parentRunId"] for child in children(training)} == {training.result.run_id}
    assert len(runs(training)) == len(tried) + 1


def test_every_child_has_its_figures_and_each_fold(training: Training) -> None:
    client = training.store.client
    for child in children(training):
        assert {"cv_roc_auc", "cv_log_loss", "cv_average_precision", "fit_seconds"} <= set(child.data.metrics)
        folds = client.get_metric_history(child.info.run_id, "fold_roc_auc")
        assert [fold.step for fold in folds] == [1, 2, 3]


def test_all_runs_are_finished(training: Training) -> None:
    assert {run.info.status for run in runs(training)} == {"FINISHED"}


def test_parent_tells_the_choice_and_it_is_the_best_child(training: Training) -> None:
    best = max(children(training), key=lambda child: child.data.metrics["cv_roc_auc"])
    chosen = {name: parent(training).data.params[f"best_{name}"] for name in training.result.parameters}
    assert chosen == best.data.params
    assert parent(training).data.metrics["cv_roc_auc"] == best.data.metrics["cv_roc_auc"]


def test_figures_of_the_result_are_the_figures_of_the_parent(training: Training) -> None:
    assert parent(training).data.metrics == pytest.approx(training.result.metrics)
    assert training.result.metrics["test_roc_auc"] > 0.7


def test_model_is_logged_once_and_on_the_parent(training: Training) -> None:
    assert [each.model_id for each in parent(training).outputs.model_outputs] == [
        training.result.model_uri.removeprefix("models:/")
    ]
    assert [each for child in children(training) for each in child.outputs.model_outputs] == []


def test_only_the_chosen_model_is_registered_and_its_run_is_the_parent(training: Training) -> None:
    (version,) = training.store.client.search_model_versions("name = 'credit-risk'")
    assert (training.result.registered_as, training.result.version) == ("credit-risk", str(version.version))
    assert version.run_id == training.result.run_id


def test_registered_model_gives_probabilities_for_raw_rows(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    rows = features(load().judging)
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(training.store.uri)
    try:
        probabilities = mlflow.pyfunc.load_model("models:/credit-risk/1").predict(rows)
    finally:
        mlflow.set_tracking_uri(before)
    assert probabilities.shape == (len(rows), 2)
    assert probabilities.sum(axis=1) == pytest.approx(1)


def test_evidence_has_plots_data_code_and_environment(training: Training) -> None:
    assert artifacts(training) == {"evidence"}
    assert artifacts(training, "evidence") == {
        "confusion_matrix.png",
        "roc_curve.png",
        "feature_importance.png",
        "data.json",
        "environment.json",
        "code",
    }
    here = {file.name for file in Path(CSV.parents[1]).glob("*.py")}
    assert artifacts(training, "evidence/code") == here


def test_evidence_names_the_data_and_the_installed_packages(training: Training) -> None:
    assert evidence(training, "data.json")["sha256"] == snapshot(CSV, rows=2400).sha256
    packages = evidence(training, "environment.json")["packages"]
    assert {"mlflow", "scikit-learn", "skops"} <= set(packages)


def test_evidence_holds_no_path_of_this_machine(training: Training) -> None:
    text = json.dumps(evidence(training, "environment.json")) + json.dumps(evidence(training, "data.json"))
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text


def test_data_are_dataset_inputs_with_hash_and_context(training: Training) -> None:
    inputs = {
        next(tag.value for tag in each.tags if tag.key == "mlflow.data.context"): each
        for each in parent(training).inputs.dataset_inputs
    }
    assert set(inputs) == {"training", "evaluation"}
    digest = snapshot(CSV, rows=2400).sha256
    for each in inputs.values():
        assert digest.startswith(each.dataset.digest)
        assert {tag.key: tag.value for tag in each.tags}["sha256"] == digest
        assert TARGET in each.dataset.schema


def test_working_directory_stays_as_it_was(training: Training) -> None:
    assert training.left_behind == []


def test_progress_tells_every_combination(training: Training) -> None:
    assert len(training.progress) == len(_STRATEGY.combinations())
    assert training.progress[-1].startswith("logistic-regression 12/12: ")


def test_training_that_breaks_leaves_a_failed_run_and_registers_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from examples.credit_risk import train as command

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(command, "evaluate", breaks)
    with working_in(tmp_path), pytest.raises(RuntimeError, match="out of memory"):
        command.train("gradient-boosting", tracking_uri=store.uri, register_as="never")
    experiment = store.client.get_experiment_by_name("credit-risk/gradient-boosting")
    assert {run.info.status for run in store.client.search_runs([experiment.experiment_id])} == {"FAILED"}
    assert store.client.search_model_versions("name = 'never'") == []


@pytest.mark.slow
def test_autolog_variant_makes_parent_and_children_without_a_line_of_ours(
    store: Store, tmp_path: Path
) -> None:
    from examples.credit_risk.autolog import EXPERIMENT, search

    with working_in(tmp_path):
        run_id = search("logistic-regression", tracking_uri=store.uri, children=3)
        assert list(tmp_path.iterdir()) == []
    experiment = store.client.get_experiment_by_name(EXPERIMENT)
    logged = store.client.search_runs([experiment.experiment_id])
    assert len(logged) == 1 + 3
    assert "best_cv_score" in store.client.get_run(run_id).data.metrics


@pytest.mark.slow
def test_after_the_autolog_variant_nothing_more_is_logged(store: Store, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    from examples.credit_risk.autolog import EXPERIMENT, search

    with working_in(tmp_path):
        search("logistic-regression", tracking_uri=store.uri, children=1)
        experiment = store.client.get_experiment_by_name(EXPERIMENT)
        before = len(store.client.search_runs([experiment.experiment_id]))
        LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    assert len(store.client.search_runs([experiment.experiment_id])) == before
