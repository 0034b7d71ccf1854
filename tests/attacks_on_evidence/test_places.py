"""Point 6: artifacts and sources lie below the deployment's root, in whatever spelling one tries."""

from __future__ import annotations

import secrets

import pytest

from tests.attacks_on_evidence.site import APPROVER, AUTHOR, COLLEAGUE, INSIDERS, Model, Person, Site
from tests.iam.conftest import PREFIX

pytestmark = pytest.mark.slow

# {bucket} and {prefix} are the deployment's own.
ELSEWHERE = (
    "s3://some-other-bucket/x",
    "s3://some-other-bucket/{prefix}/x",
    "s3://{bucket}/x",
    "s3://{bucket}",
    "s3://{bucket}/{prefix}-two/x",
    "s3://{bucket}/{prefix}/../x",
    "s3://{bucket}/{prefix}/%2e%2e/x",
    "s3://{bucket}/{prefix}/./../x",
    "s3://{bucket}/{prefix}//../x",
    "s3://{bucket}@elsewhere/{prefix}/x",
    "s3://{bucket}:443/{prefix}/x",
    "S3://some-other-bucket/x",
    "s3a://{bucket}/{prefix}/x",
    "s3n://{bucket}/{prefix}/x",
    "s3:///{bucket}/{prefix}/x",
    "s3:/{bucket}/{prefix}/x",
    " s3://some-other-bucket/x",
    "s3://{bucket}\\..\\x",
    "s3://{bucket}/{prefix}/x?versionId=1",
    "s3://{bucket}/{prefix}/x#y",
    "file:///etc",
    "file:/etc",
    "FILE:///etc",
    "/etc",
    "../../etc",
    "etc",
    "http://example.org/x",
    "https://{bucket}.s3.amazonaws.com/{prefix}/x",
    "gs://{bucket}/{prefix}/x",
    "dbfs:/x",
    "ftp://example.org/x",
    "hdfs://example.org/x",
    "mlflow-artifacts:/x",
    "mlflow-artifacts://elsewhere/x",
)


def spelled(site: Site, location: str) -> str:
    return location.replace("{bucket}", site.bucket).replace("{prefix}", PREFIX)


@pytest.mark.parametrize("location", ELSEWHERE)
def test_an_experiment_keeps_its_artifacts_nowhere_else(location: str, site: Site) -> None:
    given, name = spelled(site, location), f"experiment-{secrets.token_hex(4)}"
    body = {"name": name, "artifact_location": given}
    status, answer = site.send(AUTHOR, "POST", "experiments/create", body)
    assert status == 400, answer
    assert f"s3://{site.bucket}/{PREFIX}" in answer["message"]
    assert site.send(AUTHOR, "GET", f"experiments/get-by-name?experiment_name={name}", None)[0] == 404


@pytest.fixture(scope="module")
def model(site: Site) -> Model:
    return site.model("run artifact", until="before Staging")


@pytest.mark.parametrize("location", ELSEWHERE)
def test_a_version_has_its_files_nowhere_else(location: str, model: Model) -> None:
    site, given = model.site, spelled(model.site, location)
    body = {"name": model.name, "source": given, "run_id": model.run_id}
    status, answer = site.send(AUTHOR, "POST", "model-versions/create", body)
    assert status == 400, answer
    assert site.send(AUTHOR, "GET", f"model-versions/get?name={model.name}&version=2", None)[0] == 404


@pytest.mark.parametrize("person", INSIDERS, ids=lambda person: person.name)
@pytest.mark.parametrize("path", ["experiments/create", "model-versions/create"])
def test_no_role_may_name_another_place(path: str, person: Person, model: Model) -> None:
    name = f"experiment-{secrets.token_hex(4)}"
    body = {
        "experiments/create": {"name": name, "artifact_location": "s3://some-other-bucket/x"},
        "model-versions/create": {"name": model.name, "source": "s3://some-other-bucket/x"},
    }[path]
    status, answer = model.site.send(person, "POST", path, body)
    assert status == 400, answer
    assert "s3://some-other-bucket/x" in answer["message"]


def test_no_experiment_keeps_artifacts_among_what_is_sealed(site: Site) -> None:
    body = {
        "name": f"experiment-{secrets.token_hex(4)}",
        "artifact_location": f"s3://{site.bucket}/{PREFIX}/sealed/x",
    }
    assert site.send(COLLEAGUE, "POST", "experiments/create", body)[0] == 400


def test_places_below_the_root_are_taken(site: Site) -> None:
    name = f"experiment-{secrets.token_hex(4)}"
    body = {"name": name, "artifact_location": f"s3://{site.bucket}/{PREFIX}/{name}"}
    assert site.send(COLLEAGUE, "POST", "experiments/create", body)[0] == 200
    body = {"name": f"{name}-too"}
    assert site.send(APPROVER, "POST", "experiments/create", body)[0] == 200


def trace(site: Site, tags: dict[str, str]) -> dict[str, object]:
    where = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": site.experiment[0]}}
    info = {
        "trace_id": f"tr-{secrets.token_hex(16)}",
        "trace_location": where,
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
        "tags": tags,
    }
    return {"trace": {"trace_info": info}}


@pytest.mark.parametrize("location", ELSEWHERE)
def test_a_trace_has_its_artifacts_nowhere_else(location: str, model: Model) -> None:
    site, given = model.site, spelled(model.site, location)
    body = trace(site, {"mlflow.artifactLocation": given})
    status, answer = site.send(AUTHOR, "POST", "/api/3.0/mlflow/traces", body)
    assert status == 400, answer
    assert "mlflow.artifactLocation" in answer["message"]


def test_a_trace_that_names_no_place_is_taken(model: Model) -> None:
    body = trace(model.site, {"team": "risk"})
    status, answer = model.site.send(AUTHOR, "POST", "/api/3.0/mlflow/traces", body)
    assert status == 200, answer
