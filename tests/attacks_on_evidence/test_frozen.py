"""Point 5: what a version rests on, and what has ended, is changed by nobody who may merely write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.attacks_on_evidence.site import APPROVER, AUTHOR, COLLEAGUE, VIEWER, Model, Person, Site

pytestmark = pytest.mark.slow

# Later than what the training logged, so that it would be the metric's latest value.
LATER = 4_000_000_000_000
MODEL = {"artifact_path": "other", "flavors": {}, "utc_time_created": "2026-01-01 00:00:00.000000"}
Change = Callable[[Model], tuple[str, str, dict[str, Any]]]

ON_RUNS: dict[str, Change] = {
    "log a metric": lambda it: (
        "POST",
        "runs/log-metric",
        {"run_id": it.run_id, "key": "auc", "value": 0.99, "timestamp": LATER},
    ),
    "log a batch": lambda it: (
        "POST",
        "runs/log-batch",
        {"run_id": it.run_id, "metrics": [{"key": "auc", "value": 0.99, "timestamp": LATER, "step": 0}]},
    ),
    "log a parameter": lambda it: (
        "POST",
        "runs/log-parameter",
        {"run_id": it.run_id, "key": "leaves", "value": "9"},
    ),
    "set the commit": lambda it: (
        "POST",
        "runs/set-tag",
        {"run_id": it.run_id, "key": "mlflow.source.git.commit", "value": "fedcba9"},
    ),
    "set a tag of one's own": lambda it: (
        "POST",
        "runs/set-tag",
        {"run_id": it.run_id, "key": "team", "value": "other"},
    ),
    "delete the commit": lambda it: (
        "POST",
        "runs/delete-tag",
        {"run_id": it.run_id, "key": "mlflow.source.git.commit"},
    ),
    "open it again": lambda it: ("POST", "runs/update", {"run_id": it.run_id, "status": "RUNNING"}),
    "rename it": lambda it: ("POST", "runs/update", {"run_id": it.run_id, "run_name": "better"}),
    "log an input": lambda it: (
        "POST",
        "runs/log-inputs",
        {
            "run_id": it.run_id,
            "datasets": [
                {
                    "dataset": {
                        "name": "other",
                        "digest": "1",
                        "source_type": "local",
                        "source": "{}",
                    }
                }
            ],
        },
    ),
    "log a model": lambda it: (
        "POST",
        "runs/log-model",
        {"run_id": it.run_id, "model_json": json.dumps(MODEL | {"run_id": it.run_id})},
    ),
    "delete it": lambda it: ("POST", "runs/delete", {"run_id": it.run_id}),
}


def run_of(model: Model) -> dict[str, Any]:
    """The run as anybody reads it."""
    status, answer = model.site.send(VIEWER, "GET", f"runs/get?run_id={model.run_id}", None)
    assert status == 200
    return dict(answer["run"])


@pytest.fixture(scope="module")
def behind(site: Site) -> Model:
    """A version in Production."""
    return site.model("logged model")


@pytest.mark.parametrize("person", [AUTHOR, COLLEAGUE], ids=lambda person: person.name)
@pytest.mark.parametrize("change", ON_RUNS)
def test_a_run_behind_a_version_is_not_changed_by_contributors(
    change: str, person: Person, behind: Model
) -> None:
    before = run_of(behind)
    method, path, body = ON_RUNS[change](behind)
    status, answer = behind.site.send(person, method, path, body)
    assert status == 403, answer
    assert behind.name in answer["message"] or "version" in answer["message"]
    assert "approver" in answer["message"]
    assert run_of(behind) == before


@pytest.mark.parametrize(
    "way", ["/ajax-api/2.0/mlflow/", "//api/2.0/mlflow/", "/api/2.0//mlflow/", "/api/2.0/preview/mlflow/"]
)
def test_no_other_way_leads_to_it(way: str, behind: Model) -> None:
    before = run_of(behind)
    for method, path, body in (change(behind) for change in ON_RUNS.values()):
        status, _ = behind.site.send(COLLEAGUE, method, f"{way}{path}", body)
        assert status >= 400, path
    assert run_of(behind) == before


@pytest.mark.parametrize("field", ["run_id", "run_uuid", "runId", "runUuid"])
def test_no_other_name_of_the_run_leads_to_it(field: str, behind: Model) -> None:
    before = run_of(behind)
    for method, path, body in (change(behind) for change in ON_RUNS.values()):
        other = {field if name == "run_id" else name: value for name, value in body.items()}
        status, _ = behind.site.send(COLLEAGUE, method, path, other)
        assert status >= 400, path
    assert run_of(behind) == before


def test_its_description_may_be_written(behind: Model) -> None:
    body = {"run_id": behind.run_id, "key": "mlflow.note.content", "value": "see the wiki"}
    assert behind.site.send(COLLEAGUE, "POST", "runs/set-tag", body)[0] == 200


ON_LOGGED_MODELS: dict[str, Change] = {
    "set a tag": lambda it: (
        "PATCH",
        f"logged-models/{it.model_id}/tags",
        {"model_id": it.model_id, "tags": [{"key": "approved", "value": "yes"}]},
    ),
    "log parameters": lambda it: (
        "POST",
        f"logged-models/{it.model_id}/params",
        {"model_id": it.model_id, "params": [{"key": "leaves", "value": "9"}]},
    ),
    "finalize it again": lambda it: (
        "PATCH",
        f"logged-models/{it.model_id}",
        {"model_id": it.model_id, "status": "LOGGED_MODEL_UPLOAD_FAILED"},
    ),
    "delete it": lambda it: ("DELETE", f"logged-models/{it.model_id}", {}),
}


@pytest.mark.parametrize("person", [AUTHOR, COLLEAGUE], ids=lambda person: person.name)
@pytest.mark.parametrize("change", ON_LOGGED_MODELS)
def test_a_logged_model_behind_a_version_is_not_changed_by_contributors(
    change: str, person: Person, behind: Model
) -> None:
    method, path, body = ON_LOGGED_MODELS[change](behind)
    status, answer = behind.site.send(person, method, path, body)
    assert status == 403, answer
    status, answer = behind.site.send(VIEWER, "GET", f"logged-models/{behind.model_id}", None)
    assert (status, answer["model"]["info"]["status"]) == (200, "LOGGED_MODEL_READY")
    assert all(tag["key"] != "approved" for tag in answer["model"]["info"].get("tags", []))


@pytest.fixture
def ended(site: Site) -> Model:
    """A run of the author's that has ended, without a version."""
    with site.being(AUTHOR) as client:
        if not site.experiment:
            site.experiment.append(client.create_experiment("attacked"))
        run_id = client.create_run(site.experiment[0]).info.run_id
        client.log_metric(run_id, "auc", 0.5)
        client.set_tag(run_id, "mlflow.source.git.commit", "0123abc")
        client.set_terminated(run_id)
    return Model(site, "", "", run_id, "", None)


@pytest.mark.parametrize("change", ON_RUNS)
def test_a_run_that_has_ended_is_not_changed_by_another_contributor(change: str, ended: Model) -> None:
    before = run_of(ended)
    method, path, body = ON_RUNS[change](ended)
    status, answer = ended.site.send(COLLEAGUE, method, path, body)
    assert status == 403, answer
    assert AUTHOR.arn in answer["message"]
    assert run_of(ended) == before


@pytest.mark.parametrize("person", [AUTHOR, APPROVER], ids=lambda person: person.name)
@pytest.mark.parametrize(
    "change", ["log a metric", "log a batch", "set the commit", "rename it", "delete it"]
)
def test_its_author_or_an_approver_may(change: str, person: Person, ended: Model) -> None:
    method, path, body = ON_RUNS[change](ended)
    assert ended.site.send(person, method, path, body)[0] == 200


def test_a_metric_raised_after_the_training_by_another_decides_nothing(site: Site, ended: Model) -> None:
    """The whole of point 5: the figure that the policy judges is the author's."""
    for change in ("log a metric", "log a batch"):
        method, path, body = ON_RUNS[change](ended)
        site.send(COLLEAGUE, method, path, body)
    assert [each["value"] for each in run_of(ended)["data"]["metrics"]] == [0.5]
