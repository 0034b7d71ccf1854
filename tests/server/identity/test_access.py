"""Every route of the installed MLflow has a role, and none is listed that MLflow does not have."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from typing import Any

import pytest
from mlflow_aws_server.identity.access import HEALTH, ROUTES, WHOAMI, require, route_of
from mlflow_aws_server.identity.errors import NoSuchRouteError, PermissionDeniedError
from mlflow_aws_server.identity.roles import Lane, Principal, Role

from tests.server.conftest import SERVER_PYTHON

# Whoever changes MLflow's version looks at each route that comes or goes, and then changes this number.
_ROUTES_OF_MLFLOW = 485

_OPEN = ("GET", HEALTH)

_LIST_ROUTES = textwrap.dedent(
    """
    import json, warnings
    warnings.simplefilter("ignore")
    from fastapi.routing import APIRoute
    from starlette.routing import Mount
    from mlflow.server import app as flask_app
    from mlflow.server.fastapi_app import app
    from mlflow.server.graphql.graphql_schema_extensions import schema
    from mlflow.server.handlers import get_endpoints

    flask = [(m, r.rule) for r in flask_app.url_map.iter_rules() for m in r.methods]
    declared = [(m, path) for path, _, methods in get_endpoints() for m in methods]
    native, unknown, mounts = [], [], []

    def walk(routes, prefix):
        for route in routes:
            if isinstance(route, APIRoute):
                native.extend((m, prefix + route.path) for m in route.methods)
            elif isinstance(route, Mount) and route.path == "":
                mounts.append(type(route.app).__name__)
            elif hasattr(route, "original_router"):
                walk(route.original_router.routes, prefix + route.include_context.prefix)
            else:
                unknown.append(repr(route))

    walk(app.routes, "")
    fields = {
        kind: sorted(getattr(schema.graphql_schema, kind + "_type").fields) for kind in ("query", "mutation")
    }
    print(json.dumps({"flask": flask, "declared": declared, "native": native, "unknown": unknown,
                      "mounts": mounts, "graphql": fields}))
    """
)

# What reads and what its mutations do: the first two search, the third echoes its argument.
_GRAPHQL = {
    "query": {
        "mlflowGetExperiment",
        "mlflowGetMetricHistoryBulkInterval",
        "mlflowGetRun",
        "mlflowListArtifacts",
        "mlflowSearchModelVersions",
        "mlflowSearchRuns",
        "test",
    },
    "mutation": {"mlflowSearchDatasets", "mlflowSearchRuns", "testMutation"},
}


@pytest.fixture(scope="module")
def mlflow() -> dict[str, Any]:
    listed = subprocess.run(
        [SERVER_PYTHON, "-c", _LIST_ROUTES], capture_output=True, text=True, check=False, timeout=120
    )
    assert listed.returncode == 0, listed.stderr
    found: dict[str, Any] = json.loads(listed.stdout.splitlines()[-1])
    return found


def _all(mlflow: dict[str, Any]) -> set[tuple[str, str]]:
    # HEAD and OPTIONS come with a path's other methods, and are judged by them.
    return {
        (method, path)
        for kind in ("flask", "declared", "native")
        for method, path in mlflow[kind]
        if method not in ("HEAD", "OPTIONS")
    }


def _shape(template: str) -> str:
    """A template with its variable parts made anonymous: Flask's <x>, FastAPI's {x}, and ours."""
    return re.sub(r"<[^>]+>|\{[^}]+\}", "<>", template)


def _example(template: str) -> str:
    return re.sub(r"<[^>]+>|\{[^}]+\}", "example-1", template)


def test_every_route_of_mlflow_is_in_the_table(mlflow: dict[str, Any]) -> None:
    unclassified = []
    for method, path in sorted(_all(mlflow) - {_OPEN}):
        try:
            route = route_of(method, _example(path))
        except NoSuchRouteError:
            unclassified.append(f"{method} {path}")
            continue
        # A variable part of another route must not stand for a route of its own, unless nobody may use it.
        if route.role is not None and _shape(route.path) != _shape(path):
            unclassified.append(f"{method} {path} (taken for {route.path})")
    assert not unclassified
    assert len({(method, _shape(path)) for method, path in _all(mlflow)}) == _ROUTES_OF_MLFLOW


def test_every_line_of_the_table_is_a_route_of_mlflow(mlflow: dict[str, Any]) -> None:
    used = {(r.method, r.path) for r in (route_of(m, _example(p)) for m, p in _all(mlflow) - {_OPEN})}
    gone = {(r.method, r.path) for r in ROUTES} - used
    assert gone == {("GET", path) for path in WHOAMI}


def test_no_kind_of_route_is_overlooked(mlflow: dict[str, Any]) -> None:
    assert mlflow["unknown"] == []
    assert mlflow["mounts"] == ["_EfficientWSGIMiddleware"]
    assert {tuple(pair) for pair in mlflow["declared"]} <= {tuple(pair) for pair in mlflow["flask"]}


def test_graphql_changes_nothing_whatever_a_viewer_asks(mlflow: dict[str, Any]) -> None:
    assert {kind: set(fields) for kind, fields in mlflow["graphql"].items()} == _GRAPHQL
    assert route_of("POST", "/graphql").role is Role.VIEWER


def test_no_route_is_listed_twice() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_programs_and_the_user_interface_need_the_same_role() -> None:
    table = {(route.method, route.path): route.role for route in ROUTES}
    for (method, path), role in table.items():
        twin = ("/ajax" + path.replace("/api", "-api", 1)) if path.startswith("/api") else None
        if twin is not None and (method, twin) in table:
            assert table[method, twin] == role


_API = "/api/2.0/mlflow"


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/", Role.VIEWER),
        ("GET", "/static-files/static/js/main.js", Role.VIEWER),
        ("GET", "/get-artifact", Role.VIEWER),
        ("GET", "/model-versions/get-artifact", Role.VIEWER),
        ("POST", "/graphql", Role.VIEWER),
        ("POST", f"{_API}/runs/search", Role.VIEWER),
        ("GET", f"{_API}/registered-models/alias", Role.VIEWER),
        ("GET", "/api/2.0/mlflow-aws/whoami", Role.VIEWER),
        ("POST", f"{_API}/runs/log-batch", Role.CONTRIBUTOR),
        ("POST", f"{_API}/model-versions/create", Role.CONTRIBUTOR),
        ("POST", "/v1/traces", Role.CONTRIBUTOR),
        ("DELETE", f"{_API}/logged-models/m-1/tags/a b", Role.CONTRIBUTOR),
        ("POST", f"{_API}/model-versions/transition-stage", Role.APPROVER),
        ("POST", f"{_API}/registered-models/alias", Role.APPROVER),
        ("DELETE", f"{_API}/registered-models/alias", Role.APPROVER),
        ("DELETE", f"{_API}/model-versions/delete", Role.APPROVER),
        ("DELETE", f"{_API}/registered-models/delete", Role.APPROVER),
        ("POST", f"{_API}/webhooks", Role.ADMIN),
        ("POST", "/gateway/openai/v1/chat/completions", None),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message", None),
        ("POST", "/ajax-api/3.0/jobs/", None),
        ("PUT", f"{_API}-artifacts/artifacts/a/b", None),
        ("GET", "/api/3.0/mlflow/mcp-servers", None),
        ("HEAD", f"{_API}/runs/get", Role.VIEWER),
        ("OPTIONS", f"{_API}/registered-models/alias", Role.VIEWER),
        ("OPTIONS", f"{_API}/runs/create", Role.CONTRIBUTOR),
        ("OPTIONS", f"{_API}/webhooks/w1", Role.ADMIN),
        ("OPTIONS", "/ajax-api/3.0/jobs/x", None),
    ],
)
def test_roles_of_routes_that_matter_most(method: str, path: str, role: Role | None) -> None:
    assert route_of(method, path).role == role


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/ready"),
        ("POST", "/"),
        ("PUT", f"{_API}/runs/get"),
        ("GET", f"{_API}/runs/create"),
        ("HEAD", f"{_API}/runs/create"),
        ("GET", f"{_API}/runs/get/"),
        ("GET", f"{_API}/runs/get."),
        ("GET", f"{_API}/Runs/Get"),
        ("GET", "/API/2.0/mlflow/runs/get"),
        ("GET", "/api/2.1/mlflow/runs/get"),
        ("GET", f"{_API}/logged-models/m-1."),
        ("GET", f"{_API}/logged-models/m-1/"),
        ("GET", f"{_API}/logged-models/a b"),
        ("OPTIONS", "/unheard-of"),
        ("TRACE", f"{_API}/runs/get"),
        ("GET", "/health/"),
    ],
)
def test_what_the_table_does_not_hold_is_denied(method: str, path: str) -> None:
    with pytest.raises(NoSuchRouteError):
        route_of(method, path)


@pytest.mark.parametrize("role", list(Role))
def test_role_may_do_what_lower_roles_may_and_nothing_above(role: Role) -> None:
    principal = Principal(name="someone", role=role, lane=Lane.IAM)
    for route in ROUTES:
        if route.role is not None and route.role <= role:
            require(principal, route)
        else:
            with pytest.raises(PermissionDeniedError):
                require(principal, route)


def test_refusal_names_the_role_that_is_needed_and_the_one_that_is_there() -> None:
    viewer = Principal(name="arn:aws:iam::123456789012:role/r", role=Role.VIEWER, lane=Lane.IAM)
    with pytest.raises(PermissionDeniedError, match=r"needs the role approver; .*role/r is viewer\."):
        require(viewer, route_of("POST", f"{_API}/model-versions/transition-stage"))
