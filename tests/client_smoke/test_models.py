from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from client_smoke.identity import Caller
from client_smoke.models import (
    FirstVersion,
    SecondVersion,
    alias_names_the_champion,
    distrusted_types,
    model_is_registered_as_taught,
    stage_promotes_and_archives,
    version_predicts_the_same,
)
from client_smoke.smoke import Smoke
from client_smoke.tracking import Experiment
from client_smoke.training import train
from client_smoke.verdict import StepFailed
from tests.roles import permissions

Offline = Callable[..., Smoke]
_SKOPS_0_15 = (
    "The saved sklearn model references untrusted types. If you are sure loading these types is safe, "
    "set the 'skops_trusted_types' parameter when calling 'log_model' or 'save_model' to the list of "
    "trusted types. Root error: Untrusted types found in the file: ['sklearn.tree._tree.Tree']."
)


@pytest.fixture
def registered(offline: Offline) -> Smoke:
    smoke = offline(mlflow=Mock())
    smoke.remember(FirstVersion(version="1", model_uuid="first"))
    smoke.remember(SecondVersion(version="2", model_uuid="second", run_id="r2"))
    smoke.remember(Experiment("7", "bucket", "runs/7"))
    smoke.remember(Caller("somebody", "approver", permissions("approver")))
    return smoke


def loading(monkeypatch: pytest.MonkeyPatch, model_uuid: str, predictions: list[Any]) -> Mock:
    import mlflow.pyfunc  # MLflow's attribute is a lazy stand-in until the module is imported

    model = SimpleNamespace(
        metadata=SimpleNamespace(model_uuid=model_uuid), predict=lambda _samples: predictions
    )
    load = Mock(return_value=model)
    monkeypatch.setattr(mlflow.pyfunc, "load_model", load)
    return load


def test_model_that_predicts_the_same_passes(registered: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    load = loading(monkeypatch, "first", list(train().forest.predict(train().samples)))
    assert "agrees on 45 unseen samples" in version_predicts_the_same(registered)
    load.assert_called_once_with(f"models:/{registered.model_name}/1")


def test_model_that_predicts_otherwise_is_noticed(registered: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = list(train().forest.predict(train().samples))
    predictions[0] = (predictions[0] + 1) % 3
    loading(monkeypatch, "first", predictions)
    with pytest.raises(StepFailed, match="predicts otherwise for 1 of 45 samples"):
        version_predicts_the_same(registered)


def test_other_model_behind_the_same_name_is_noticed(
    registered: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading(monkeypatch, "somebody else's", list(train().forest.predict(train().samples)))
    with pytest.raises(StepFailed, match="loads model somebody else's, not first"):
        version_predicts_the_same(registered)


def test_old_version_that_stays_in_production_is_noticed(registered: Smoke) -> None:
    client: Any = registered.mlflow
    client.get_model_version.return_value.current_stage = "Production"
    with pytest.raises(StepFailed, match="'1': 'Production'"):
        stage_promotes_and_archives(registered)


def test_alias_that_stays_on_the_old_version_is_noticed(
    registered: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading(monkeypatch, "first", list(train().forest.predict(train().samples)))
    with pytest.raises(StepFailed, match="@champion loads model first, not second"):
        alias_names_the_champion(registered)


def fake_log_model(monkeypatch: pytest.MonkeyPatch, message: str) -> Mock:
    import mlflow.sklearn
    from mlflow.exceptions import MlflowException

    def log_model(_model: object, **options: object) -> SimpleNamespace:
        if "skops_trusted_types" not in options:
            raise MlflowException(message)
        return SimpleNamespace(registered_model_version=1, model_uuid="u")

    called = Mock(side_effect=log_model)
    monkeypatch.setattr(mlflow.sklearn, "log_model", called)
    monkeypatch.setattr(mlflow, "start_run", lambda **_: nullcontext())
    return called


def test_plain_call_is_tried_first_and_the_fallback_is_told(
    registered: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_model = fake_log_model(monkeypatch, _SKOPS_0_15)
    observed = model_is_registered_as_taught(registered)
    plain, fallback = (call.kwargs for call in log_model.call_args_list)
    assert plain == {"artifact_path": "model", "registered_model_name": registered.model_name}
    assert fallback["skops_trusted_types"] == ["sklearn.tree._tree.Tree"]
    assert "skops<0.15" in observed


def test_only_scikit_learns_own_types_are_ever_trusted() -> None:
    assert distrusted_types(_SKOPS_0_15) == ["sklearn.tree._tree.Tree"]
    assert distrusted_types(_SKOPS_0_15.replace("sklearn.tree", "evil.sklearn.tree")) == []
    assert distrusted_types(_SKOPS_0_15.replace("Tree']", "Tree', 'builtins.eval']")) == []
    assert distrusted_types("Root error: sklearn.tree._tree.Tree") == []
