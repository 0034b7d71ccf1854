"""Sending back or copying reserved tags costs a client nothing else that it sent; changing one is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow_aws_server.provenance import evidence

from tests.conftest import RdsLike
from tests.server.provenance.harness import ALICE, Client, Principal, Server, stock_client

BOB = "cognito:bob"
PRINCIPAL = "mlflow_aws.principal"
CLAIMED = "mlflow_aws.claimed_user"
USER = "mlflow.user"
SOURCE = "s3://bucket/root/model"


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[Client]:
    with stock_client(server) as client:
        yield client


@pytest.fixture
def client(shared: Client) -> Client:
    shared.become(ALICE)
    return shared


def _batch(tags: dict[str, str]) -> list[RunTag]:
    return [RunTag(key, value) for key, value in tags.items()]


def _run(client: MlflowClient, **tags: str) -> str:
    return str(client.create_run("0", tags={USER: "laptop", **tags}).info.run_id)


def test_all_tags_of_a_run_can_be_set_again_on_it(client: Client) -> None:
    run = _run(client, fine="x")
    tags = client.get_run(run).data.tags
    assert {PRINCIPAL, CLAIMED, USER} < tags.keys()
    for key, value in {**tags, "fine": "y"}.items():
        client.set_tag(run, key, value)
    client.log_batch(run, tags=_batch(tags | {"more": "z"}))
    assert client.get_run(run).data.tags == {**tags, "more": "z"}


def test_all_tags_of_a_run_can_be_set_on_another(client: Client) -> None:
    old = client.get_run(_run(client, fine="x")).data.tags
    client.become(BOB)
    run = _run(client)
    before = client.get_run(run).data.tags
    client.log_batch(run, metrics=[Metric("auc", 0.9, 1, 0)], tags=_batch(old))
    found = client.get_run(run).data
    assert found.metrics == {"auc": 0.9}
    assert found.tags == {**old, **{key: before[key] for key in (PRINCIPAL, CLAIMED, USER)}}
    assert found.tags[PRINCIPAL] == BOB


def test_fluent_interface_can_copy_all_tags_of_a_run(client: Client) -> None:
    old = client.get_run(_run(client, fine="x")).data.tags
    client.become(BOB)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        with mlflow.start_run(experiment_id="0", tags=old) as run:
            mlflow.set_tags(old)
            mlflow.log_metric("auc", 0.9)
    finally:
        mlflow.set_tracking_uri(before)
    found = client.get_run(run.info.run_id).data
    assert (found.tags["fine"], found.metrics) == ("x", {"auc": 0.9})
    assert (found.tags[PRINCIPAL], found.tags[USER]) == (BOB, BOB)


def test_version_can_be_registered_with_the_tags_of_another(client: Client, name: str) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, SOURCE, tags={"fine": "x"})
    client.set_registered_model_alias(name, "champion", "1")
    other = client.get_model_version(name, "1")
    client.become(BOB)
    made = client.create_model_version(name, SOURCE, tags=other.tags)
    assert made.tags == {PRINCIPAL: BOB, "fine": "x"}
    for key, value in other.tags.items():
        client.set_model_version_tag(name, "1", key, value)
    assert client.get_model_version(name, "1").tags == other.tags


def test_logged_model_can_have_the_tags_of_another(client: Client) -> None:
    old = client.create_logged_model("0", tags={"fine": "x", USER: "laptop"})
    client.become(BOB)
    new = client.create_logged_model("0", tags=old.tags)
    client.set_logged_model_tags(new.model_id, {**old.tags, "more": "z"})
    found = client.get_logged_model(new.model_id).tags
    assert (found["fine"], found["more"], found[PRINCIPAL], found[USER]) == ("x", "z", BOB, BOB)
    client.set_logged_model_tags(old.model_id, old.tags)
    assert client.get_logged_model(old.model_id).tags == old.tags


def test_experiment_and_model_can_have_the_tags_of_a_run(client: Client, name: str) -> None:
    old = client.get_run(_run(client, fine="x")).data.tags
    experiment = client.get_experiment(client.create_experiment(name, tags=old))
    assert {key for key in experiment.tags if "user" in key or "fine" in key} == {USER, "fine"}
    model = client.create_registered_model(name, tags=old)
    assert (model.tags["fine"], PRINCIPAL in model.tags) == ("x", False)


@pytest.mark.parametrize("exists", [False, True])
def test_prompt_can_be_registered_with_the_tags_of_another(
    server: Server, client: Client, name: str, exists: bool
) -> None:
    client.register_prompt(name, "Hello {{name}}", tags={"fine": "x"})
    client.set_prompt_alias(name, "champion", 1)
    old = client.load_prompt(name).tags
    assert any(key.startswith("mlflow_aws.history.") for key in old)
    client.become(BOB)
    other = f"{name}-other"
    if exists:
        client.register_prompt(other, "Hi")
    version = client.register_prompt(other, "Hello {{name}}, again", tags=dict(old)).version
    found = client.load_prompt(f"prompts:/{other}/{version}")
    assert (found.template, found.tags["fine"]) == ("Hello {{name}}, again", "x")
    assert found.tags[PRINCIPAL] == BOB
    assert {key for key in found.tags if key.startswith("mlflow_aws.")} == {PRINCIPAL}
    tags = server.tags_of_model(other)
    assert tags["fine"] == "x"
    assert not any(key.startswith("mlflow_aws.") for key in tags)


REFUSED: dict[str, Callable[[Server, str, str], tuple[str, str, dict[str, object]]]] = {
    "somebody else's real name, alone": lambda server, run, other: (
        "POST",
        "runs/set-tag",
        {"run_id": run, "key": PRINCIPAL, "value": BOB},
    ),
    "nothing but somebody else's reserved tags": lambda server, run, other: (
        "POST",
        "runs/log-batch",
        {"run_id": run, "tags": [{"key": PRINCIPAL, "value": BOB}, {"key": USER, "value": BOB}]},
    ),
    "a made-up name, with metrics": lambda server, run, other: (
        "POST",
        "runs/log-batch",
        {
            "run_id": run,
            "metrics": [{"key": "m", "value": 1, "timestamp": 1}],
            "tags": [{"key": PRINCIPAL, "value": "nobody has this name"}],
        },
    ),
    "a name in the wrong tag": lambda server, run, other: (
        "POST",
        "runs/log-batch",
        {
            "run_id": run,
            "params": [{"key": "p", "value": "1"}],
            "tags": [{"key": "mlflow_aws.history.1", "value": BOB}],
        },
    ),
    "one true and one made up": lambda server, run, other: (
        "POST",
        "runs/create",
        {
            "experiment_id": "0",
            "tags": [{"key": PRINCIPAL, "value": BOB}, {"key": PRINCIPAL, "value": "made up"}],
        },
    ),
    "a made-up principal beside two users": lambda server, run, other: (
        "POST",
        "runs/log-batch",
        {
            "run_id": run,
            "tags": [
                {"key": USER, "value": BOB},
                {"key": USER, "value": "ada"},
                {"key": PRINCIPAL, "value": "made up"},
            ],
        },
    ),
    "two principals": lambda server, run, other: (
        "POST",
        "runs/log-batch",
        {
            "run_id": run,
            "tags": [
                {"key": "fine", "value": "x"},
                {"key": PRINCIPAL, "value": BOB},
                {"key": PRINCIPAL, "value": ALICE},
            ],
        },
    ),
    "an empty name": lambda server, run, other: ("POST", "runs/set-tag", {"run_id": run, "key": PRINCIPAL}),
    "what no database can hold": lambda server, run, other: (
        "POST",
        "runs/log-batch",
        {
            "run_id": run + "\0",
            "tags": [{"key": "a", "value": "b"}, {"key": PRINCIPAL, "value": "\ud800"}],
        },
    ),
    "deletion of the user": lambda server, run, other: (
        "POST",
        "runs/delete-tag",
        {"run_id": run, "key": USER},
    ),
    "deletion of a claim": lambda server, run, other: (
        "POST",
        "runs/delete-tag",
        {"run_id": run, "key": CLAIMED},
    ),
    "deletion of a logged model's user": lambda server, run, other: (
        "DELETE",
        f"logged-models/{other}/tags/{USER}",
        {},
    ),
    "another name of a logged model": lambda server, run, other: (
        "PATCH",
        f"logged-models/{other}/tags",
        {"tags": [{"key": PRINCIPAL, "value": BOB}]},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name_and_nothing_is_written(server: Server, rds: RdsLike, case: str) -> None:
    server.post("runs/create", {"experiment_id": "0"}, principal=Principal(BOB))
    run = server.new_run(user_id="laptop")
    model = server.post("logged-models", {"experiment_id": "0"})["model"]["info"]["model_id"]
    ask = (
        "SELECT 'tag', t::text FROM tags t UNION ALL SELECT 'model', t::text FROM logged_model_tags t"
        " UNION ALL SELECT 'metric', m::text FROM metrics m UNION ALL SELECT 'param', p::text FROM params p"
        " UNION ALL SELECT 'run', run_uuid FROM runs ORDER BY 1, 2"
    )
    before = rds.administer(ask, database=server.database)
    method, path, body = REFUSED[case](server, run, model)
    answer = server.send(method, path, body)
    assert (answer.status, answer.code) == (403, "PERMISSION_DENIED")
    assert "Only the server writes the tag 'mlflow" in answer.json["message"]
    assert rds.administer(ask, database=server.database) == before


def test_names_are_looked_for_by_an_index(server: Server, rds: RdsLike) -> None:
    question = evidence._WRITTEN.replace("$1", f"ARRAY['{PRINCIPAL}']").replace("$2", "ARRAY['made up']")
    plan = rds.administer(f"SET enable_seqscan = off; EXPLAIN {question}", database=server.database)
    assert "mlflow_aws_authors_of_runs" in str(plan)


def test_more_made_up_tags_than_anything_has_are_not_looked_for(server: Server) -> None:
    made_up = [{"key": f"mlflow_aws.history.{number}", "value": "{}"} for number in range(5001)]
    answer = server.send("POST", "runs/create", {"experiment_id": "0", "tags": made_up})
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")


def test_made_up_tag_of_a_prompt_is_refused(server: Server, name: str) -> None:
    """Prompts' tags come one by one, but this is no copy."""
    server.new_model(name, versions=0)
    tag = {"name": name, "key": PRINCIPAL, "value": "made up"}
    assert server.send("POST", "registered-models/set-tag", tag).status == 403
    assert server.tags_of_model(name) == {}


@pytest.mark.parametrize(
    ("path", "thing"),
    [
        ("runs/set-tag", {"run_id": "0" * 32}),
        ("model-versions/set-tag", {"name": "gone", "version": "1"}),
        ("registered-models/set-tag", {"name": "gone"}),
    ],
)
def test_of_what_does_not_exist_nothing_is_unchanged(
    server: Server, path: str, thing: dict[str, str]
) -> None:
    answer = server.send("POST", path, {**thing, "key": PRINCIPAL, "value": "made up"})
    assert answer.status == 403


def test_unchanged_tag_of_a_deleted_run_is_mlflow_s_to_judge(server: Server) -> None:
    run = server.new_run()
    server.post("runs/delete", {"run_id": run})
    answer = server.send("POST", "runs/set-tag", {"run_id": run, "key": PRINCIPAL, "value": ALICE})
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "must be in the 'active' state" in answer.json["message"]


def test_unchanged_tag_of_a_deleted_version_is_mlflow_s_to_judge(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    server.send("DELETE", "model-versions/delete", {"name": name, "version": "1"})
    tag = {"name": name, "version": "1", "key": PRINCIPAL, "value": ALICE}
    assert server.send("POST", "model-versions/set-tag", tag).status in (403, 404)


def test_unchanged_tag_costs_mlflow_nothing(server: Server) -> None:
    run = server.new_run()
    before = len(server.served)
    assert server.post("runs/set-tag", {"run_id": run, "key": PRINCIPAL, "value": ALICE}) == {}
    assert server.served[before:] == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("runs/set-tag", {"key": USER, "value": "ada"}),
        ("runs/log-batch", {"tags": [{"key": USER, "value": "ada"}]}),
        ("runs/log-batch", {"tags": [{"key": USER, "value": "ada"}, {"key": "fine", "value": "x"}]}),
        # As mlflow-export-import does: the source's user, then whoever imports. MLflow keeps the last.
        ("runs/log-batch", {"tags": [{"key": USER, "value": "eve"}, {"key": USER, "value": "ada"}]}),
    ],
)
def test_user_that_an_import_names_afterwards_is_kept_as_a_claim(
    server: Server, path: str, body: dict[str, object]
) -> None:
    run = server.new_run()
    server.post(path, {"run_id": run, **body})
    found = server.tags_of_run(run)
    assert (found[PRINCIPAL], found[USER], found[CLAIMED]) == (ALICE, ALICE, "ada")
    assert found.get("fine") == ("x" if "fine" in str(body) else None)


def test_user_that_is_named_for_a_logged_model_is_kept_as_a_claim(server: Server) -> None:
    model = server.post("logged-models", {"experiment_id": "0"})["model"]["info"]["model_id"]
    body = {"tags": [{"key": USER, "value": "u" * 300}]}
    assert server.send("PATCH", f"logged-models/{model}/tags", body).status == 200
    shown = server.send("GET", f"logged-models/{model}").json["model"]["info"]["tags"]
    found = {tag["key"]: tag["value"] for tag in shown}
    assert (found[PRINCIPAL], found[USER], found[CLAIMED]) == (ALICE, ALICE, "u" * 256)


def test_two_users_of_which_one_is_a_principal_forge_nobody(server: Server) -> None:
    """Neither of them becomes the author: whoever the server verified is."""
    server.post("runs/create", {"experiment_id": "0"}, principal=Principal(BOB))
    for last in (BOB, ALICE):
        run = server.new_run(user_id="laptop")
        users = [{"key": USER, "value": each} for each in ("ada", BOB, ALICE, last)]
        server.post("runs/log-batch", {"run_id": run, "tags": [*users, {"key": "fine", "value": "x"}]})
        found = server.tags_of_run(run)
        assert (found[PRINCIPAL], found[USER], found[CLAIMED]) == (ALICE, ALICE, "laptop")
