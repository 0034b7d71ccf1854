"""MLflow's own client against the server as it is deployed: contributors work as before."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import RestException
from sklearn.linear_model import LogisticRegression

from local.parts.ports import free_port
from tests.conftest import RdsLike
from tests.object_store import ObjectStore
from tests.roles import server_roles
from tests.server.conftest import AUDIENCE, Identity, Migration, deployment, wait_until_ready

CALLERS = {"alice": "contributor", "bob": "contributor", "carol": "approver"}
X = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0] * 5, "b": [1.0, 0.0, 1.0, 0.0] * 5})
Y = (X["a"] > 1).astype(int)
As = Callable[[str], MlflowClient]


def _arn(name: str) -> str:
    return f"arn:aws:iam::123456789012:role/{name}"


@pytest.fixture(scope="module")
def url(rds: RdsLike, identity: Identity, migration: Migration, object_store: ObjectStore) -> Iterator[str]:
    """A server of the module's own, whose callers are two contributors and an approver."""
    roles = {
        role: {"iam_roles": [_arn(n) for n in CALLERS if CALLERS[n] == role]} for role in CALLERS.values()
    }
    with deployment(rds, identity, copy_of=migration) as made:
        port = free_port()
        address = f"127.0.0.1:{port}"
        process = made.start(
            "serve",
            port=port,
            MLFLOW_AWS_ROLES=server_roles(roles),
            MLFLOW_AWS_PUBLIC_URL=f"https://{address}",
        )
        try:
            wait_until_ready(process, port)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def become(url: str, identity: Identity, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> As:
    """Makes MLflow's client, also the one behind `mlflow.…`, act as one of the callers."""
    for name, value in {
        "MLFLOW_TRACKING_URI": url,
        "MLFLOW_S3_ENDPOINT_URL": object_store.endpoint,
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example-of-a-role-s-secret",
        "AWS_DEFAULT_REGION": "eu-central-1",
        # Finding out what a model needs takes a process that loads it.
        "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "120",
    }.items():
        monkeypatch.setenv(name, value)

    def be(name: str) -> MlflowClient:
        token = identity.sts.token(subject=_arn(name), audience=AUDIENCE, seconds=3600)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        return MlflowClient()

    return be


def _log_model(**more: Any) -> Any:
    model = LogisticRegression().fit(X, Y)
    return mlflow.sklearn.log_model(
        model, name="model", pip_requirements=["scikit-learn"], serialization_format="cloudpickle", **more
    )


def _registered(become: As) -> tuple[str, str, str]:
    """Alice's ended run, its logged model, and the name of the model that was registered from it."""
    become("alice")
    name = f"model-{secrets.token_hex(4)}"
    with mlflow.start_run() as run:
        logged = _log_model(registered_model_name=name)
        mlflow.log_metric("auc", 0.5)
    return run.info.run_id, logged.model_id, name


def _refused(change: Callable[[], object]) -> None:
    with pytest.raises(RestException, match=r"PERMISSION_DENIED.*can be changed or deleted only"):
        change()


def test_a_run_that_registers_its_model_goes_on_until_its_end(become: As) -> None:
    client = become("alice")
    name = f"model-{secrets.token_hex(4)}"
    with mlflow.start_run() as run:
        logged = _log_model(registered_model_name=name)
        mlflow.log_metric("auc", 0.5)
        mlflow.log_metric("of the model", 0.5, model_id=logged.model_id)
        mlflow.log_params({"lr": 1, "depth": 2})
        mlflow.set_tag("commit", "abc")
        mlflow.set_logged_model_tags(logged.model_id, {"commit": "abc"})
        with mlflow.start_run(nested=True) as child:
            mlflow.log_metric("auc", 0.4)
    done = client.get_run(run.info.run_id)
    assert done.info.status == client.get_run(child.info.run_id).info.status == "FINISHED"
    assert (done.data.metrics["auc"], done.data.params, done.data.tags["commit"]) == (
        0.5, {"lr": "1", "depth": "2"}, "abc"
    )  # fmt: skip
    measured = client.get_logged_model(logged.model_id).metrics
    assert sorted(metric.key for metric in measured) == ["auc", "of the model"]
    assert client.get_model_version(name, "1").status == "READY"
    # From here on it is frozen, for its author too; the child has no version.
    _refused(lambda: client.log_metric(run.info.run_id, "auc", 0.99))
    client.log_metric(child.info.run_id, "auc", 0.5)


def test_the_model_of_an_ended_run_is_registered_as_often_as_its_author_likes(become: As) -> None:
    client = become("alice")
    name = f"model-{secrets.token_hex(4)}"
    with mlflow.start_run() as run:
        logged = _log_model()
    # After each version, MLflow's client notes on the logged model which versions it has become.
    sources = (f"runs:/{run.info.run_id}/model", f"models:/{logged.model_id}")
    made = [mlflow.register_model(source, name) for source in sources]
    mlflow.register_model(sources[1], f"{name}-too")
    assert [(version.version, version.status) for version in made] == [("1", "READY"), ("2", "READY")]
    noted = client.get_logged_model(logged.model_id).tags["mlflow.modelVersions"]
    assert [each["name"] for each in json.loads(noted)][-1] == f"{name}-too"


def test_autolog_trains_and_registers(become: As, recwarn: pytest.WarningsRecorder) -> None:
    client = become("alice")
    name = f"model-{secrets.token_hex(4)}"
    mlflow.sklearn.autolog(registered_model_name=name, serialization_format="cloudpickle", silent=False)
    try:
        with mlflow.start_run() as run:
            LogisticRegression().fit(X, Y)
    finally:
        mlflow.sklearn.autolog(disable=True)
    done = client.get_run(run.info.run_id)
    assert done.info.status == "FINISHED"
    assert "training_accuracy_score" in done.data.metrics
    assert client.get_model_version(name, "1").run_id == run.info.run_id
    assert not [w for w in recwarn if "autologging" in str(w.message)]


def test_an_ended_run_without_a_version_is_resumed_by_its_author_and_by_nobody_else(become: As) -> None:
    become("alice")
    with mlflow.start_run() as run:
        mlflow.log_metric("auc", 0.5)
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("auc", 0.6, step=1)
        mlflow.log_param("resumed", "yes")
    bob = become("bob")
    _refused(lambda: bob.update_run(run.info.run_id, status="RUNNING"))
    _refused(lambda: bob.log_metric(run.info.run_id, "auc", 0.99))
    assert bob.get_run(run.info.run_id).data.metrics == {"auc": 0.6}
    bob.set_tag(run.info.run_id, "mlflow.note.content", "looked at")


def test_nobody_below_approval_changes_or_deletes_what_production_rests_on(become: As) -> None:
    run, model, name = _registered(become)
    become("carol").transition_model_version_stage(name, "1", "Production")
    for who in ("alice", "bob"):
        client = become(who)
        before = client.get_run(run).to_dictionary(), client.get_logged_model(model).to_dictionary()
        for change in (
            lambda c: c.log_metric(run, "auc", 0.99),
            lambda c: c.log_batch(run, metrics=[Metric("auc", 0.99, 1, 1)]),
            lambda c: c.log_param(run, "more", 1),
            lambda c: c.log_batch(run, params=[Param("more", "1")]),
            lambda c: c.set_tag(run, "commit", "def"),
            lambda c: c.log_batch(run, tags=[RunTag("commit", "def")]),
            lambda c: c.delete_tag(run, "mlflow.source.name"),
            lambda c: c.update_run(run, status="RUNNING"),
            lambda c: c.update_run(run, name="second"),
            lambda c: c.set_terminated(run, "FAILED"),
            lambda c: c.delete_run(run),
            lambda c: c.restore_run(run),
            lambda c: c.log_inputs(run, models=[mlflow.entities.LoggedModelInput(model)]),
            lambda c: c.set_logged_model_tags(model, {"commit": "def"}),
            lambda c: c.log_model_params(model, {"more": "1"}),
            lambda c: c.finalize_logged_model(model, "FAILED"),
            lambda c: c.delete_logged_model(model),
            lambda c: c.create_logged_model("0", source_run_id=run),
        ):
            _refused(lambda change=change, client=client: change(client))  # type: ignore[misc]
        after = client.get_run(run).to_dictionary(), client.get_logged_model(model).to_dictionary()
        assert after == before
    carol = become("carol")
    carol.set_tag(run, "reviewed", "yes")
    carol.delete_run(run)
    carol.restore_run(run)


def test_a_contributor_evaluates_a_registered_model_whose_own_metrics_stay(become: As) -> None:
    run, model, name = _registered(become)
    bob = become("bob")
    before = bob.get_logged_model(model).to_dictionary()
    with mlflow.start_run() as own:
        result = mlflow.models.evaluate(
            f"models:/{name}/1",
            X.assign(y=Y),
            targets="y",
            model_type="classifier",
            evaluator_config={"log_model_explainability": False},
        )
        mlflow.log_metric("by hand", 1.0, model_id=model)
    stored = bob.get_run(own.info.run_id)
    assert stored.data.metrics["accuracy_score"] == result.metrics["accuracy_score"]
    assert stored.data.metrics["by hand"] == 1.0
    assert [used.model_id for used in stored.inputs.model_inputs] == [model]
    assert bob.get_logged_model(model).to_dictionary() == before
    assert bob.get_run(run).data.metrics == {"auc": 0.5}
