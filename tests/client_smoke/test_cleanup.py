from __future__ import annotations

import json
import os
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from client_smoke.cleanup import nothing_stays_behind
from client_smoke.smoke import Smoke
from client_smoke.tokens import Tokens
from client_smoke.tracking import experiment_has_an_s3_root, run_is_logged
from client_smoke.verdict import StepFailed

Offline = Callable[..., Smoke]


def not_found() -> Exception:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

    error: Exception = MlflowException("no", error_code=RESOURCE_DOES_NOT_EXIST)
    return error


@pytest.fixture
def client() -> Mock:
    """A tracking client whose registered model and experiment are there until they are deleted."""
    client = Mock()
    client.get_registered_model.side_effect = [Mock(), not_found()]
    experiment = SimpleNamespace(
        experiment_id="7", artifact_location="s3://bucket/runs/7", lifecycle_stage="active"
    )
    client.get_experiment_by_name.return_value = experiment
    client.get_experiment.return_value = SimpleNamespace(lifecycle_stage="deleted")
    client.search_runs.return_value = []
    client.search_model_versions.return_value = []
    client.search_logged_models.return_value = [SimpleNamespace(model_id="m-1")]
    return client


def s3(*listings: list[str], errors: list[dict[str, str]] | None = None) -> Mock:
    pages = [[{"Contents": [{"Key": key} for key in keys]}] for keys in listings]
    return Mock(
        get_paginator=Mock(return_value=Mock(paginate=Mock(side_effect=pages))),
        delete_objects=Mock(return_value={"Errors": errors or []}),
    )


def test_real_run_is_removed_and_a_second_clean_up_finds_nothing(smoke: Smoke) -> None:
    experiment_has_an_s3_root(smoke)
    run_is_logged(smoke)
    assert "marked deleted, 2 objects deleted" in nothing_stays_behind(smoke)
    assert "0 objects deleted" in nothing_stays_behind(smoke)


def test_everything_is_removed(client: Mock, offline: Offline) -> None:
    store = s3(["runs/7/a", "runs/7/b"], [])
    smoke = offline(mlflow=client, s3=store)
    nothing_stays_behind(smoke)
    client.delete_registered_model.assert_called_once_with(smoke.model_name)
    client.delete_logged_model.assert_called_once_with("m-1")
    client.delete_experiment.assert_called_once_with("7")
    deleted = store.delete_objects.call_args.kwargs["Delete"]["Objects"]
    assert [entry["Key"] for entry in deleted] == ["runs/7/a", "runs/7/b"]
    assert any("lifecycle rule for noncurrent versions" in entry for entry in smoke.remains)


def test_sealed_copies_stay_and_are_named(client: Mock, offline: Offline) -> None:
    seals = [{"bucket": "bucket", "prefix": f"sealed/smoke/{version}/1"} for version in (1, 2)]
    client.search_model_versions.return_value = [
        SimpleNamespace(tags={"mlflow_aws.seal": json.dumps(seal)}) for seal in seals
    ] + [SimpleNamespace(tags={})]
    smoke = offline(mlflow=client, s3=s3([], []))
    nothing_stays_behind(smoke)
    assert smoke.remains[0] == (
        "sealed copies, which only the deployment's break-glass role may delete: "
        "s3://bucket/sealed/smoke/1/1, s3://bucket/sealed/smoke/2/1"
    )


def test_only_keys_below_this_experiment_are_looked_at(client: Mock, offline: Offline) -> None:
    store = s3([], [])
    nothing_stays_behind(offline(mlflow=client, s3=store))
    prefixes = {call.kwargs["Prefix"] for call in store.get_paginator().paginate.call_args_list}
    assert prefixes == {"runs/7/"}


@pytest.mark.parametrize("location", ["s3://bucket", "s3://bucket/", "mlflow-artifacts:/7"])
def test_whole_bucket_or_other_store_is_never_emptied(location: str, client: Mock, offline: Offline) -> None:
    client.get_experiment_by_name.return_value.artifact_location = location
    store = s3(["anything"], ["anything"])
    smoke = offline(mlflow=client, s3=store)
    nothing_stays_behind(smoke)
    store.delete_objects.assert_not_called()
    assert location in smoke.remains[0]


def test_objects_that_the_role_may_not_delete_are_named_with_who_will(client: Mock, offline: Offline) -> None:
    store = s3(["runs/7/a"], ["runs/7/a"], errors=[{"Key": "runs/7/a", "Code": "AccessDenied"}])
    smoke = offline(mlflow=client, s3=store)
    assert "1 objects left (AccessDenied)" in nothing_stays_behind(smoke)
    assert "mlflow gc" in smoke.remains[0]


def test_role_that_may_not_even_list_is_no_failure_either(client: Mock, offline: Offline) -> None:
    refused = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ListObjectsV2")
    store = Mock(get_paginator=Mock(side_effect=refused))
    smoke = offline(mlflow=client, s3=store)
    assert "artifacts left (AccessDenied)" in nothing_stays_behind(smoke)
    client.delete_experiment.assert_called_once_with("7")


def test_objects_that_survive_their_deletion_fail_the_step(client: Mock, offline: Offline) -> None:
    with pytest.raises(StepFailed, match="1 objects are still under"):
        nothing_stays_behind(offline(mlflow=client, s3=s3(["runs/7/a"], ["runs/7/a"])))


def test_model_that_cannot_be_deleted_does_not_keep_the_experiment(client: Mock, offline: Offline) -> None:
    client.delete_registered_model.side_effect = OSError("gone")
    with pytest.raises(StepFailed, match="gone"):
        nothing_stays_behind(offline(mlflow=client, s3=s3([], [])))
    client.delete_experiment.assert_called_once_with("7")


def denied() -> Exception:
    from mlflow.exceptions import RestException

    error: Exception = RestException({"error_code": "PERMISSION_DENIED", "message": "approvers only"})
    return error


def test_what_a_contributor_may_not_delete_is_named_with_who_may(client: Mock, offline: Offline) -> None:
    client.delete_registered_model.side_effect = denied()
    client.delete_experiment.side_effect = denied()
    smoke = offline(mlflow=client, s3=s3([], []))
    observed = nothing_stays_behind(smoke)
    assert "registered model left" in observed
    assert "experiment 7 left" in observed
    assert [entry.endswith("; an approver or admin may delete it") for entry in smoke.remains[-2:]] == [
        True
    ] * 2


def test_approver_deletes_what_the_caller_may_not(
    client: Mock, offline: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "own")

    def delete(_name: str) -> None:
        if os.environ["MLFLOW_TRACKING_TOKEN"] != "an approver's":
            raise denied()

    client.delete_registered_model.side_effect = delete
    client.delete_experiment.side_effect = delete
    smoke = offline(mlflow=client, s3=s3([], []), tokens=Tokens(approver="an approver's"))
    assert "registered model removed" in nothing_stays_behind(smoke)
    assert client.delete_experiment.call_count == 2
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "own"


def test_experiment_that_stays_active_fails_the_step(client: Mock, offline: Offline) -> None:
    client.get_experiment.return_value = SimpleNamespace(lifecycle_stage="active")
    with pytest.raises(StepFailed, match="experiment 7 is active after its deletion"):
        nothing_stays_behind(offline(mlflow=client, s3=s3([], [])))
