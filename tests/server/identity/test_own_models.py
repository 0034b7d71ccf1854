"""A role with models of its own promotes and deletes those, and changes no others."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from mlflow_aws_server.identity import Gate, RoleMap

from tests.server.identity.conftest import World, arn

_V2 = "/api/2.0/mlflow"
_CHANGES = (
    ("POST", f"{_V2}/registered-models/create"),
    ("PATCH", f"{_V2}/registered-models/update"),
    ("DELETE", f"{_V2}/registered-models/delete"),
    ("POST", f"{_V2}/registered-models/alias"),
    ("POST", f"{_V2}/registered-models/set-tag"),
    ("POST", f"{_V2}/model-versions/create"),
    ("POST", f"{_V2}/model-versions/transition-stage"),
    ("POST", "/ajax-api/2.0/mlflow/model-versions/transition-stage"),
    ("DELETE", f"{_V2}/model-versions/delete"),
)
_ROLE = {"permissions": ["read", "write"], "own_models": "smoke-canary-"}


def with_canary(world: World, **others: dict[str, Any]) -> World:
    roles = RoleMap.parse(json.dumps({**others, "canary": {**_ROLE, "iam_roles": [arn("canary")]}}))
    world.settings = dataclasses.replace(world.settings, roles=roles)
    world.gate = Gate(world.behind, world.settings, fetch=world._fetch)
    return world


@pytest.mark.parametrize(("method", "path"), _CHANGES)
async def test_changes_its_own_models_and_no_others(world: World, method: str, path: str) -> None:
    canary = with_canary(world)
    for name, status in (("smoke-canary-1", 200), ("fraud", 403), ("Smoke-canary-1", 403)):
        answer = await canary.call(
            method, path, token=canary.token("canary"), body=json.dumps({"name": name}).encode()
        )
        assert answer.status == status, name
    assert len(world.behind.reached) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'"smoke-canary-1"',
        b"{}",
        b'{"name": 1}',
        b'{"name": ["smoke-canary-1"]}',
        b'{"name": "fraud", "name": "smoke-canary-1"}',
        b'{"name": "smoke-canary-1", "name": "fraud"}',
        b'{"name": "smoke-canary-1", "new_name": "fraud"}',
        b'{"name": "smoke-canary-1", "newName": "fraud"}',
        b'{"name": "smoke-canary-1", "tags": "' + b"x" * 70_000 + b'"}',
        b'"{\\"name\\": \\"smoke-canary-1\\"}"',
        b"[" * 20_000,
    ],
)
async def test_what_could_name_another_model_changes_none(world: World, body: bytes) -> None:
    canary = with_canary(world)
    answer = await canary.call(
        "POST", f"{_V2}/registered-models/rename", token=canary.token("canary"), body=body
    )
    assert (answer.status, answer.json["error_code"]) == (403, "PERMISSION_DENIED")
    assert "smoke-canary-" in answer.json["message"]
    assert not world.behind.reached


async def test_what_is_passed_on_is_what_was_judged(world: World) -> None:
    seen = bytearray()

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((await receive())["body"])
        await world.behind(scope, receive, send)

    canary = with_canary(world)
    canary.gate._app = behind
    body = b'{"name": "smoke-canary-1", "stage": "Production"}'
    await canary.call(
        "POST", f"{_V2}/model-versions/transition-stage", token=canary.token("canary"), body=body
    )
    assert bytes(seen) == body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", f"{_V2}/runs/create", 200),
        ("GET", f"{_V2}/registered-models/get", 200),
        ("POST", f"{_V2}/experiments/delete", 403),
        ("POST", f"{_V2}/traces/delete-traces", 403),
        ("POST", f"{_V2}/webhooks", 403),
    ],
)
async def test_otherwise_has_the_permissions_of_its_role(
    world: World, method: str, path: str, status: int
) -> None:
    canary = with_canary(world)
    assert (await canary.call(method, path, token=canary.token("canary"))).status == status


async def test_another_role_beside_it_permits_what_it_permits_and_no_promotion(world: World) -> None:
    contributor = {"permissions": ["read", "write"], "iam_roles": [arn("canary")]}
    both = with_canary(world, contributor=contributor)
    create, promote = f"{_V2}/registered-models/create", f"{_V2}/model-versions/transition-stage"
    own = b'{"name": "smoke-canary-1"}'
    assert (await both.call("POST", create, token=both.token("canary"), body=b'{"name": "x"}')).status == 200
    assert (await both.call("POST", promote, token=both.token("canary"), body=own)).status == 403


async def test_whoami_names_its_models(world: World) -> None:
    canary = with_canary(world)
    path = "/api/2.0/mlflow-aws/whoami"
    assert (await canary.call(path=path, token=canary.token("canary"))).json["own_models"] == "smoke-canary-"
