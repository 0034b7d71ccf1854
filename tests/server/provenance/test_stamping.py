"""Who made it is written on everything that is made."""

from __future__ import annotations

import json

import pytest

from tests.server.provenance.harness import ALICE, Principal, Server

PRINCIPAL = "mlflow_aws.principal"
BOB = "cognito:bob"


def _ours(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key.startswith("mlflow_aws")}


def _list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def test_run_says_who_created_it(server: Server) -> None:
    assert server.tags_of_run(server.new_run())[PRINCIPAL] == ALICE


def test_run_created_by_the_user_interface_does_too(server: Server) -> None:
    made = server.post("/ajax-api/2.0/mlflow/runs/create", {"experiment_id": "0"})
    assert server.tags_of_run(made["run"]["info"]["run_id"])[PRINCIPAL] == ALICE


def test_person_is_named_as_the_gate_names_them(server: Server) -> None:
    made = server.post(
        "runs/create", {"experiment_id": "0"}, principal=Principal("cognito:jürgen", lane="cognito")
    )
    assert server.tags_of_run(made["run"]["info"]["run_id"])[PRINCIPAL] == "cognito:jürgen"


def test_creating_a_run_stays_fast(server: Server) -> None:
    copied = _list(server.tags_of_run(server.new_run()))
    before = len(server.served)
    server.new_run(tags=[{"key": "mlflow.user", "value": "me"}])
    server.new_run(tags=copied)
    assert server.served[before:] == []


def test_run_created_with_tags_of_another_loses_only_the_reserved_ones(server: Server) -> None:
    first = server.new_run(tags=[{"key": "fine", "value": "x"}], run_name="first")
    copied = _list(server.tags_of_run(first))
    made = server.post(
        "runs/create", {"experiment_id": "0", "tags": copied}, principal=Principal(BOB, lane="cognito")
    )
    tags = server.tags_of_run(made["run"]["info"]["run_id"])
    assert (tags[PRINCIPAL], tags["mlflow.user"]) == (BOB, BOB)
    assert (tags["fine"], tags["mlflow.runName"]) == ("x", "first")


def test_version_says_who_registered_it(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    assert _ours(server.tags_of_version(name, "1")) == {PRINCIPAL: ALICE}


def test_copied_version_does_not_copy_the_evidence(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    server.post("registered-models/alias", {"name": name, "alias": "champion", "version": "1"})
    server.post("model-versions/set-tag", {"name": name, "version": "1", "key": "mlflow.user", "value": "w"})
    copied = _list(server.tags_of_version(name, "1"))
    assert {tag["key"][:18] for tag in copied} >= {PRINCIPAL[:18], "mlflow_aws.history", "mlflow_aws.seal"}
    body = {"name": name, "source": "s3://bucket/root/model", "tags": copied}
    server.post("model-versions/create", body, principal=Principal(BOB, lane="cognito"))
    tags = server.tags_of_version(name, "2")
    assert _ours(tags) == {PRINCIPAL: BOB}
    assert tags["mlflow.user"] == "w"


def test_logged_model_says_who_logged_it(server: Server) -> None:
    made = server.post("logged-models", {"experiment_id": "0", "name": "m"})
    tags = {tag["key"]: tag["value"] for tag in made["model"]["info"]["tags"]}
    assert tags == {PRINCIPAL: ALICE, "mlflow.user": ALICE}


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param(lambda text: json.dumps(text).encode(), id="JSON in a JSON string"),
        pytest.param(lambda text: text.encode("utf-16"), id="UTF-16"),
        pytest.param(lambda text: text.encode("utf-32-le"), id="UTF-32"),
        pytest.param(lambda text: text.encode("utf-8-sig"), id="byte order mark"),
        pytest.param(
            lambda text: text.replace('{"experiment_id"', '{"tags": [], "experiment_id"', 1).encode(),
            id="tags given twice",
        ),
        pytest.param(lambda text: text.replace("mlflow_aws", r"\u006dlflow_aws").encode(), id="escaped"),
    ],
)
def test_run_is_stamped_however_the_body_is_spelt(server: Server, spelling: object) -> None:
    copied = _list(server.tags_of_run(server.new_run()))
    text = json.dumps({"experiment_id": "0", "tags": copied})
    answer = server.send("POST", "runs/create", raw=spelling(text))  # type: ignore[operator]
    assert answer.status == 200, answer.body
    assert _ours(server.tags_of_run(answer.json["run"]["info"]["run_id"])) == {PRINCIPAL: ALICE}


@pytest.mark.parametrize(
    "unreadable",
    [
        {"start_time": 1.5},
        {"unknown": {"a": [1]}},
    ],
)
def test_run_is_stamped_whatever_else_mlflow_cannot_read(
    server: Server, unreadable: dict[str, object]
) -> None:
    """MLflow goes on with the fields that it read before one that is not of its type."""
    made = server.post("runs/create", {"experiment_id": "0", **unreadable, "tags": []})
    assert server.tags_of_run(made["run"]["info"]["run_id"])[PRINCIPAL] == ALICE


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"7",
        b'{"experiment_id": "0", "tags": {"key": "a"}}',
        b'{"experiment_id": "0", "tags": ["a"]}',
        b'{"experiment_id": "0", "tags": [{"key": 1, "value": "a"}]}',
        b'{"experiment_id": "0", "tags": [{"key": null, "value": "a"}]}',
        b'{"experiment_id": "0", "tags": [{"key": "a", "value": 1}]}',
        b'{"experiment_id": "0", "user_id": 1}',
        b'{"experiment_id": "0", "user_id": "a", "userId": "b"}',
        b"{",
        b'{"experiment_id": "0"}{}',
        b"\xff\xfe\xff",
        b"[" * 100_000,
    ],
)
def test_body_that_could_mean_anything_is_refused(server: Server, body: bytes) -> None:
    answer = server.send("POST", "runs/create", raw=body)
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")


def test_nothing_is_created_for_a_caller_without_a_verified_identity(server: Server) -> None:
    before = len(server.served)
    answer = server.send("POST", "runs/create", {"experiment_id": "0"}, principal=None)
    assert (answer.status, answer.code) == (500, "INTERNAL_ERROR")
    assert server.served[before:] == []
