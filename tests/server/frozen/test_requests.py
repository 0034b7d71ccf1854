"""What cannot be judged is not passed on, and no route is overlooked."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.frozen import Frozen
from mlflow_aws_server.frozen.changes import reader_of
from mlflow_aws_server.identity.access import ROUTES
from mlflow_aws_server.identity.mapping import RoleMap

from tests.roles import server_roles
from tests.server.fastpath.harness import call
from tests.server.frozen.harness import AJAX, ALICE, PREFIX, Caller

JUDGED = {
    "POST runs/update", "POST runs/delete", "POST runs/restore", "POST runs/set-tag", "POST runs/delete-tag",
    "POST runs/log-batch", "POST runs/log-metric", "POST runs/log-parameter", "POST runs/log-inputs",
    "POST runs/log-model", "POST runs/outputs", "POST traces/link-to-run", "POST logged-models",
    "PATCH logged-models/<id>", "DELETE logged-models/<id>", "POST logged-models/<id>/params",
    "PATCH logged-models/<id>/tags", "DELETE logged-models/<id>/tags/<key>",
}  # fmt: skip
# What the others change, by the beginning of their path behind `mlflow/`.
OF_OTHER_THINGS = {
    "experiments/": "experiments; deleting one, and its runs with it, needs the permission to approve",
    "runs/create": "makes a run of the caller's own",
    "registered-models/": "models; what their stages and aliases name is provenance's and sealing's concern",
    "model-versions/": "versions; the same",
    "traces": "traces; none belongs to a run's own record but by traces/link-to-run",
    "datasets/": "evaluation data sets",
    "issues": "issues of traces",
    "label-schemas/": "schemas of assessments",
    "review-queues/": "queues of traces to review",
    "scorers/": "scorers of traces",
    "webhooks": "webhooks",
    "ui-telemetry": "what the UI tells MLflow about itself",
}
# They change nothing: POST carries the question.
READS = (
    "artifacts/presigned-download-url", "experiments/search", "experiments/search-datasets", "runs/search",
    "registered-models/get-latest-versions", "logged-models/search", "traces/search", "traces/metrics",
    "traces/batchGetInfos", "traces/calculate-filter-correlation", "datasets/search", "issues/search",
)  # fmt: skip


def _changing_routes() -> list[tuple[str, str, str]]:
    """Method, path, and path behind `mlflow/`, of each route that may change something.

    The table holds every route of the installed MLflow; tests/server/identity/test_access.py sees to that.
    """
    found = []
    for route in ROUTES:
        behind = route.path.partition("mlflow/")[2]
        if route.permission is not None and route.method != "GET" and behind not in READS:
            found.append((route.method, route.path, behind))
    return found


def test_every_route_that_changes_something_is_judged_or_excused() -> None:
    judged, overlooked = set(), []
    for method, path, behind in _changing_routes():
        concrete = path.replace("<id>", "m-1").replace("<key>", "k")
        if reader_of(method, concrete) is not None:
            judged.add((method, path))
        elif path not in ("/graphql", "/v1/traces") and not behind.startswith(tuple(OF_OTHER_THINGS)):
            overlooked.append(f"{method} {path}")
    assert not overlooked, "\n".join(
        ["Judge each in frozen/changes.py, or add it to OF_OTHER_THINGS with the reason:", *overlooked]
    )
    expected = {
        (method, f"{prefix}/{path}")
        for method, path in (line.split() for line in JUDGED)
        for prefix in (PREFIX, AJAX)
    }
    assert judged == expected


def test_no_excuse_is_left_over() -> None:
    paths = [behind for _, _, behind in _changing_routes()]
    assert [each for each in OF_OTHER_THINGS if not any(path.startswith(each) for path in paths)] == []


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b'{"run_id": 5}',
        b'{"run_id": "a", "runId": "b"}',
        b'{"run_id": "a", "metrics": [{"model_id": "a", "modelId": "b"}]}',
        b'{"run_id": "a", "metrics": [{"model_id": 7}]}',
        b'{"run_id": "a", "metrics": "m"}',
        b'{"run_id": "a", "tags": ["t"]}',
        b"[" * 100_000,
        b'{"run_id": "\\u0000", "metrics": []}',
        b'{"run_id": "\\ud800", "metrics": [{"key": "a", "value": 1, "timestamp": 1}]}',
    ],
)
def test_a_request_that_cannot_be_understood_is_refused(bob: Caller, raw: bytes) -> None:
    assert bob.send("POST", "runs/log-batch", raw=raw).status == 400


def _unguarded(*, open_connection: Any) -> tuple[Frozen, list[Any]]:
    passed: list[Any] = []

    async def mlflow(scope: Any, receive: Any, send: Any) -> None:
        passed.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    pool = ConnectionPool(open_connection, connections=1, queue=1, attempts=1)
    return Frozen(mlflow, pool, RoleMap.parse(server_roles({})), ended_runs_by_author=True), passed


@pytest.mark.parametrize("path", ["runs/log-metric", "runs/delete", "logged-models"])
def test_without_the_database_nothing_is_changed(path: str) -> None:
    async def unreachable() -> Any:
        raise OSError("nobody listens")

    frozen, passed = _unguarded(open_connection=unreachable)

    async def as_alice(scope: Any, receive: Any, send: Any) -> None:
        await frozen({**scope, "mlflow_aws.principal": ALICE}, receive, send)

    body = json.dumps({"run_id": "a" * 32, "source_run_id": "a" * 32}).encode()
    answer = asyncio.run(call(as_alice, "POST", f"{PREFIX}/{path}", body=body))
    assert (answer.status, passed) == (503, [])
    assert answer.json["error_code"] == "TEMPORARILY_UNAVAILABLE"
