"""Every route of the installed MLflow has a permission, and none is listed that MLflow does not have."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import textwrap
from typing import Any

import pytest
from mlflow_aws_server.identity.access import EXPOSITION, HEALTH, ROUTES, WHOAMI, Route, require, route_of
from mlflow_aws_server.identity.errors import NoSuchRouteError, PermissionDeniedError
from mlflow_aws_server.identity.mapping import RoleMap
from mlflow_aws_server.identity.roles import Lane, Permission, Place, Principal

from stacks.roles import BY_NAME
from tests.roles import server_roles
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


def _message(next_action: str, routes: list[str]) -> str:
    return "\n".join([next_action, *routes])


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
        if route.permission is not None and _shape(route.path) != _shape(path):
            unclassified.append(f"{method} {path} (taken for {route.path})")
    assert not unclassified, _message(
        "Add each to its permission in identity/access.py, or to _NOT_OFFERED; then run"
        " python -m mlflow_aws_server.identity.table > docs/identity-routes.md",
        unclassified,
    )
    found = len({(method, _shape(path)) for method, path in _all(mlflow)})
    assert found == _ROUTES_OF_MLFLOW, (
        f"Look at each route that came or went; then _ROUTES_OF_MLFLOW = {found}"
    )


def test_every_line_of_the_table_is_a_route_of_mlflow(mlflow: dict[str, Any]) -> None:
    used = {("GET", path) for path in WHOAMI | EXPOSITION}
    for method, path in _all(mlflow) - {_OPEN}:
        with contextlib.suppress(NoSuchRouteError):  # the test above names them
            route = route_of(method, _example(path))
            used.add((route.method, route.path))
    gone = sorted({(route.method, route.path) for route in ROUTES} - used)
    assert not gone, _message("Remove from identity/access.py:", [" ".join(line) for line in gone])


def test_no_kind_of_route_is_overlooked(mlflow: dict[str, Any]) -> None:
    assert mlflow["unknown"] == []
    assert mlflow["mounts"] == ["_EfficientWSGIMiddleware"]
    assert {tuple(pair) for pair in mlflow["declared"]} <= {tuple(pair) for pair in mlflow["flask"]}


def test_graphql_changes_nothing_whatever_a_viewer_asks(mlflow: dict[str, Any]) -> None:
    assert {kind: set(fields) for kind, fields in mlflow["graphql"].items()} == _GRAPHQL
    assert route_of("POST", "/graphql").permission is Permission.READ


def test_no_route_is_listed_twice() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_programs_and_the_user_interface_need_the_same_permission() -> None:
    table = {(route.method, route.path): route.permission for route in ROUTES}
    for (method, path), permission in table.items():
        twin = ("/ajax" + path.replace("/api", "-api", 1)) if path.startswith("/api") else None
        if twin is not None and (method, twin) in table:
            assert table[method, twin] == permission


_API = "/api/2.0/mlflow"


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("GET", "/", Permission.READ),
        ("GET", "/static-files/static/js/main.js", Permission.READ),
        ("GET", "/get-artifact", Permission.READ),
        ("GET", "/model-versions/get-artifact", Permission.READ),
        ("POST", "/graphql", Permission.READ),
        ("POST", f"{_API}/runs/search", Permission.READ),
        ("GET", f"{_API}/registered-models/alias", Permission.READ),
        ("GET", "/api/2.0/mlflow-aws/whoami", Permission.READ),
        ("POST", f"{_API}/runs/log-batch", Permission.WRITE),
        ("POST", f"{_API}/model-versions/create", Permission.WRITE),
        ("POST", "/v1/traces", Permission.WRITE),
        ("DELETE", f"{_API}/logged-models/m-1/tags/a b", Permission.WRITE),
        ("POST", f"{_API}/model-versions/transition-stage", Permission.APPROVE),
        ("POST", f"{_API}/registered-models/alias", Permission.APPROVE),
        ("DELETE", f"{_API}/registered-models/alias", Permission.APPROVE),
        ("DELETE", f"{_API}/model-versions/delete", Permission.APPROVE),
        ("DELETE", f"{_API}/registered-models/delete", Permission.APPROVE),
        ("GET", f"{_API}/webhooks", Permission.AUDIT),
        ("POST", f"{_API}/webhooks", Permission.ADMINISTER),
        ("POST", "/gateway/openai/v1/chat/completions", None),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message", None),
        ("POST", "/ajax-api/3.0/jobs/", None),
        ("PUT", f"{_API}-artifacts/artifacts/a/b", None),
        ("GET", "/api/3.0/mlflow/mcp-servers", None),
        ("HEAD", f"{_API}/runs/get", Permission.READ),
        ("OPTIONS", f"{_API}/registered-models/alias", Permission.READ),
        ("OPTIONS", f"{_API}/runs/create", Permission.WRITE),
        ("OPTIONS", f"{_API}/webhooks/w1", Permission.AUDIT),
        ("OPTIONS", "/ajax-api/3.0/jobs/x", None),
    ],
)
def test_permissions_of_routes_that_matter_most(
    method: str, path: str, permission: Permission | None
) -> None:
    assert route_of(method, path).permission == permission


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


_ROLES = RoleMap.parse(server_roles({role: {"groups": [f"mlflow-{role}"]} for role in BY_NAME}))


def _principal(*roles: str) -> Principal:
    members = _ROLES.of_groups([f"mlflow-{role}" for role in roles])
    return Principal(name="someone", roles=members, lane=Lane.COGNITO)


def _may(principal: Principal, route: Route) -> bool:
    try:
        require(principal, route, place=Place.DEPLOYMENT, roles=_ROLES)
    except PermissionDeniedError:
        return False
    return True


@pytest.mark.parametrize(
    ("lower", "higher"), [*itertools.pairwise(("viewer", "contributor", "approver", "admin"))]
)
def test_a_higher_role_of_the_ladder_may_do_all_that_a_lower_one_may_and_more(
    lower: str, higher: str
) -> None:
    below, above = (
        {(route.method, route.path) for route in ROUTES if _may(_principal(role), route)}
        for role in (lower, higher)
    )
    assert below < above


def test_an_auditor_reads_whatever_anybody_may_read_and_changes_nothing() -> None:
    auditor, admin = _principal("auditor"), _principal("admin")
    for route in ROUTES:
        assert _may(auditor, route) == (_may(admin, route) and not route.changes), route


def test_an_auditor_who_also_contributes_may_do_both_and_no_more() -> None:
    both = _principal("auditor", "contributor")
    for route in ROUTES:
        assert _may(both, route) == (
            _may(_principal("auditor"), route) or _may(_principal("contributor"), route)
        )


def test_what_is_offered_to_nobody_is_refused_to_an_admin() -> None:
    for route in ROUTES:
        assert _may(_principal("admin"), route) == (route.permission is not None)


def test_refusal_names_the_roles_that_would_do_and_the_one_that_is_there() -> None:
    with pytest.raises(PermissionDeniedError, match=r"needs the role approver or admin; someone is viewer\."):
        require(
            _principal("viewer"),
            route_of("POST", f"{_API}/model-versions/transition-stage"),
            place=Place.DEPLOYMENT,
            roles=_ROLES,
        )
