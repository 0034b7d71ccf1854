"""Created by: the verified principal, wherever MLflow looks; the client's claim is beside it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.provenance.harness import ALICE, Principal, Server

PRINCIPAL = "mlflow_aws.principal"
CLAIMED = "mlflow_aws.claimed_user"
USER = "mlflow.user"
LONG = f"arn:aws:iam::123456789012:role/{'team/' * 100}alice"


def _run(server: Server, *, principal: str = ALICE, **fields: object) -> Any:
    return server.post(
        "runs/create", {"experiment_id": "0", "start_time": 1, **fields}, principal=Principal(principal)
    )["run"]


def _tags(run: Any) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def _found(server: Server, condition: str) -> set[str]:
    found = server.post("runs/search", {"experiment_ids": ["0"], "filter": condition, "max_results": 1000})
    return {run["info"]["run_id"] for run in found.get("runs", ())}


def test_run_is_created_by_the_principal(server: Server) -> None:
    run = _run(server, user_id="laptop", tags=[{"key": USER, "value": "laptop"}])
    assert run["info"]["user_id"] == ALICE
    assert {key: _tags(run).get(key) for key in (USER, CLAIMED)} == {USER: ALICE, CLAIMED: "laptop"}


def test_run_is_found_by_the_principal_that_made_it(server: Server) -> None:
    carol = "cognito:carol"
    run = _run(server, principal=carol, user_id="laptop")["info"]["run_id"]
    assert _found(server, f"attributes.user_id = '{carol}'") == {run}
    assert _found(server, f"tags.`{USER}` = '{carol}'") == {run}
    assert run in _found(server, f"tags.`{CLAIMED}` = 'laptop'")
    assert _found(server, "attributes.user_id = 'laptop'") == set()


@pytest.mark.parametrize(
    ("fields", "claim"),
    [
        ({}, None),
        ({"user_id": ""}, None),
        ({"user_id": "unknown"}, None),
        ({"user_id": ALICE}, None),
        ({"userId": "laptop"}, "laptop"),
        ({"user_id": "unknown", "tags": [{"key": USER, "value": "laptop"}]}, "laptop"),
        ({"user_id": "column", "tags": [{"key": USER, "value": "tag"}]}, "tag"),
        ({"user_id": "column", "tags": [{"key": USER, "value": ""}]}, "column"),
        ({"tags": [{"key": USER, "value": "first"}, {"key": USER, "value": "last"}]}, "last"),
        ({"tags": [{"key": USER, "value": "u" * 300}]}, "u" * 256),
    ],
)
def test_what_the_client_says_of_its_user_is_a_claim(
    server: Server, fields: dict[str, Any], claim: str | None
) -> None:
    run = _run(server, **fields)
    assert (run["info"]["user_id"], _tags(run)[USER]) == (ALICE, ALICE)
    assert _tags(run).get(CLAIMED) == claim
    assert server.tags_of_run(run["info"]["run_id"]).get(CLAIMED) == claim


def test_name_longer_than_the_column_is_whole_in_the_tag(server: Server) -> None:
    run = _run(server, principal=LONG)
    assert len(LONG) > 500
    assert run["info"]["user_id"] == LONG[:256]
    assert (_tags(run)[USER], _tags(run)[PRINCIPAL]) == (LONG, LONG)


def test_logged_model_is_created_by_the_principal(server: Server) -> None:
    body = {"experiment_id": "0", "name": "m", "tags": [{"key": USER, "value": "laptop"}]}
    made = server.post("logged-models", body)["model"]["info"]
    assert {tag["key"]: tag["value"] for tag in made["tags"]} == {
        PRINCIPAL: ALICE,
        USER: ALICE,
        CLAIMED: "laptop",
    }


def test_version_s_principal_is_in_its_row_when_it_is_made(server: Server, name: str) -> None:
    """Whoever listens for the row finds it there: sealing names the version's user by it."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
    from sqlalchemy import event

    seen: list[dict[str, str]] = []

    def see(_mapper: object, _connection: object, row: Any) -> None:
        seen.append({tag.key: tag.value for tag in row.model_version_tags})

    server.new_model(name, versions=0)
    event.listen(SqlModelVersion, "before_insert", see)
    try:
        server.post("model-versions/create", {"name": name, "source": "s3://bucket/root/model"})
    finally:
        event.remove(SqlModelVersion, "before_insert", see)
    assert seen == [{PRINCIPAL: ALICE}]
