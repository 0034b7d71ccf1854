"""Who made it is written on everything that is made."""

from __future__ import annotations

import json

import pytest

from tests.server.provenance.harness import ALICE, Principal, Server

PRINCIPAL = "mlflow_aws.principal"
FORGED = [
    {"key": PRINCIPAL, "value": "arn:aws:iam::123456789012:role/mallory"},
    {"key": "mlflow_aws.history.20200101T000000.000000Z-0000", "value": "{}"},
    {"key": "mlflow.user", "value": "whoever"},
]


def _ours(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key.startswith("mlflow_aws")}


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
    before = len(server.served)
    server.new_run(tags=FORGED)
    assert "/api/2.0/mlflow/runs/create" not in server.served[before:]


def test_run_created_with_tags_of_another_loses_only_the_reserved_ones(server: Server) -> None:
    tags = server.tags_of_run(server.new_run(tags=FORGED, run_name="copy"))
    assert _ours(tags) == {PRINCIPAL: ALICE}
    assert (tags["mlflow.user"], tags["mlflow.runName"]) == ("whoever", "copy")


def test_version_says_who_registered_it(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    assert _ours(server.tags_of_version(name, "1")) == {PRINCIPAL: ALICE}


def test_copied_version_does_not_copy_the_evidence(server: Server, name: str) -> None:
    server.new_model(name, versions=0)
    body = {"name": name, "source": "s3://bucket/root/model", "tags": FORGED}
    server.post("model-versions/create", body, principal=Principal("cognito:bob"))
    tags = server.tags_of_version(name, "1")
    assert _ours(tags) == {PRINCIPAL: "cognito:bob"}
    assert tags["mlflow.user"] == "whoever"


def test_logged_model_says_who_logged_it(server: Server) -> None:
    made = server.post("logged-models", {"experiment_id": "0", "name": "m", "tags": FORGED})
    tags = {tag["key"]: tag["value"] for tag in made["model"]["info"]["tags"]}
    assert _ours(tags) == {PRINCIPAL: ALICE}


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
    text = json.dumps({"experiment_id": "0", "tags": FORGED})
    answer = server.send("POST", "runs/create", raw=spelling(text))  # type: ignore[operator]
    assert answer.status == 200, answer.body
    assert _ours(server.tags_of_run(answer.json["run"]["info"]["run_id"])) == {PRINCIPAL: ALICE}


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"7",
        b'{"experiment_id": "0", "tags": {"key": "a"}}',
        b'{"experiment_id": "0", "tags": ["a"]}',
        b'{"experiment_id": "0", "tags": [{"key": 1, "value": "a"}]}',
        b'{"experiment_id": "0", "tags": [{"key": null, "value": "a"}]}',
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


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"transfer-encoding": "chunked", "content-length": ""}, 411),
        ({"content-length": str(5 * 1024 * 1024)}, 413),
        ({"content-length": "-1"}, 400),
    ],
)
def test_body_of_unknown_or_excessive_length_is_refused(
    server: Server, headers: dict[str, str], status: int
) -> None:
    assert server.send("POST", "runs/create", {"experiment_id": "0"}, headers=headers).status == status
