"""Which permission each of MLflow's routes needs. What is not in this table is denied.

Paths are the pinned MLflow's; tests/server/identity/test_access.py walks all routes of the installed MLflow
and fails where one is missing here, or is here and gone there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mlflow_aws_server.identity.errors import NoSuchRouteError, PermissionDeniedError
from mlflow_aws_server.identity.mapping import RoleMap
from mlflow_aws_server.identity.roles import Permission, Place, Principal, rights

HEALTH = "/health"
WHOAMI = frozenset(("/api/2.0/mlflow-aws/whoami", "/ajax-api/2.0/mlflow-aws/whoami"))
EXPOSITION = frozenset(("/api/2.0/mlflow-aws/metrics", "/ajax-api/2.0/mlflow-aws/metrics"))

_V2 = "/[ajax-]api/2.0/mlflow"
_V3 = "/[ajax-]api/3.0/mlflow"

_READ = f"""
GET    /
GET    /version
GET    /static-files/<rest>
GET    /build/<rest>
GET    /[ajax-]api/2.0/mlflow-aws/whoami
GET    /[ajax-]api/3.0/mlflow/server-info
GET    /ajax-api/3.0/mlflow/ui-telemetry
POST   /ajax-api/3.0/mlflow/ui-telemetry
GET    /graphql
POST   /graphql
GET    /get-artifact
GET    /model-versions/get-artifact
GET    {_V2}/artifacts/list
POST   {_V2}/artifacts/presigned-download-url
GET    {_V2}/experiments/get
GET    {_V2}/experiments/get-by-name
GET    {_V2}/experiments/search
POST   {_V2}/experiments/search
POST   /[ajax-]api/2.0mlflow/experiments/search-datasets
POST   /ajax-api/2.0/mlflow/experiments/search-datasets
GET    {_V2}/runs/get
POST   {_V2}/runs/search
GET    {_V2}/metrics/get-history
GET    /ajax-api/2.0/mlflow/metrics/get-history-bulk
GET    {_V2}/metrics/get-history-bulk-interval
GET    {_V2}/registered-models/get
GET    {_V2}/registered-models/search
GET    {_V2}/registered-models/get-latest-versions
POST   {_V2}/registered-models/get-latest-versions
GET    {_V2}/registered-models/alias
GET    {_V2}/model-versions/get
GET    {_V2}/model-versions/search
GET    {_V2}/model-versions/get-download-uri
POST   {_V2}/logged-models/search
GET    {_V2}/logged-models/<id>
GET    {_V2}/logged-models/<id>/artifacts/directories
GET    /ajax-api/2.0/mlflow/logged-models/<id>/artifacts/files
GET    {_V2}/traces
GET    {_V2}/traces/<id>/info
GET    {_V2}/unified-traces
GET    {_V2}/get-online-trace-details
GET    /ajax-api/2.0/mlflow/get-trace-artifact
GET    /ajax-api/3.0/mlflow/get-trace-artifact
POST   {_V3}/traces/search
POST   {_V3}/traces/metrics
POST   {_V3}/traces/batchGetInfos
POST   {_V3}/traces/calculate-filter-correlation
GET    {_V3}/traces/batchGet
GET    {_V3}/traces/get
GET    {_V3}/traces/<id>
GET    {_V3}/traces/<id>/assessments/<id>
GET    {_V3}/datasets/search
POST   {_V3}/datasets/search
GET    {_V3}/datasets/<id>
GET    {_V3}/datasets/<id>/experiment-ids
GET    {_V3}/datasets/<id>/records
POST   {_V3}/issues/search
GET    {_V3}/issues/<id>
GET    {_V3}/label-schemas/get
GET    {_V3}/label-schemas/get-by-name
GET    {_V3}/label-schemas/list
GET    {_V3}/review-queues/get
GET    {_V3}/review-queues/get-by-name
GET    {_V3}/review-queues/items/list
GET    {_V3}/review-queues/list
GET    {_V3}/scorers/get
GET    {_V3}/scorers/list
GET    {_V3}/scorers/versions
GET    {_V3}/scorers/online-configs
"""

# Logs, registers, describes. A run or a logged model that it deletes can be restored.
_WRITE = f"""
POST   {_V2}/experiments/create
POST   {_V2}/experiments/update
POST   {_V2}/experiments/set-experiment-tag
POST   {_V2}/experiments/delete-experiment-tag
POST   {_V2}/runs/create
POST   {_V2}/runs/update
POST   {_V2}/runs/delete
POST   {_V2}/runs/restore
POST   {_V2}/runs/set-tag
POST   {_V2}/runs/delete-tag
POST   {_V2}/runs/log-batch
POST   {_V2}/runs/log-inputs
POST   {_V2}/runs/log-metric
POST   {_V2}/runs/log-model
POST   {_V2}/runs/log-parameter
POST   {_V2}/runs/outputs
POST   {_V2}/logged-models
PATCH  {_V2}/logged-models/<id>
DELETE {_V2}/logged-models/<id>
POST   {_V2}/logged-models/<id>/params
PATCH  {_V2}/logged-models/<id>/tags
DELETE {_V2}/logged-models/<id>/tags/<key>
POST   {_V2}/registered-models/create
PATCH  {_V2}/registered-models/update
POST   {_V2}/registered-models/set-tag
DELETE {_V2}/registered-models/delete-tag
POST   {_V2}/model-versions/create
PATCH  {_V2}/model-versions/update
POST   {_V2}/model-versions/set-tag
DELETE {_V2}/model-versions/delete-tag
POST   /v1/traces
POST   {_V2}/traces
PATCH  {_V2}/traces/<id>
PATCH  {_V2}/traces/<id>/tags
DELETE {_V2}/traces/<id>/tags
POST   {_V2}/traces/link-prompts
POST   {_V2}/traces/link-to-run
POST   {_V3}/traces
PATCH  {_V3}/traces/<id>/tags
DELETE {_V3}/traces/<id>/tags
POST   {_V3}/traces/<id>/assessments
PATCH  {_V3}/traces/<id>/assessments/<id>
DELETE {_V3}/traces/<id>/assessments/<id>
POST   {_V3}/datasets/create
POST   {_V3}/datasets/<id>/records
POST   {_V3}/datasets/<id>/add-experiments
POST   {_V3}/datasets/<id>/remove-experiments
PATCH  {_V3}/datasets/<id>/tags
DELETE {_V3}/datasets/<id>/tags/<key>
POST   {_V3}/issues
PATCH  {_V3}/issues/<id>
POST   {_V3}/label-schemas/create
PATCH  {_V3}/label-schemas/update
POST   {_V3}/review-queues/create
POST   {_V3}/review-queues/update
POST   {_V3}/review-queues/get-or-create-user
POST   {_V3}/review-queues/items/add
POST   {_V3}/review-queues/items/remove
POST   {_V3}/review-queues/items/set-status
POST   {_V3}/scorers/register
"""

# Decides which version is in production, and deletes what others work with or nobody can restore.
_APPROVE = f"""
POST   {_V2}/experiments/delete
POST   {_V2}/experiments/restore
POST   {_V2}/model-versions/transition-stage
POST   {_V2}/registered-models/alias
DELETE {_V2}/registered-models/alias
POST   {_V2}/registered-models/rename
DELETE {_V2}/registered-models/delete
DELETE {_V2}/model-versions/delete
POST   {_V2}/traces/delete-traces
POST   {_V3}/traces/delete-traces
DELETE {_V3}/datasets/<id>
DELETE {_V3}/datasets/<id>/records
DELETE {_V3}/label-schemas/delete
POST   {_V3}/review-queues/delete
DELETE {_V3}/scorers/delete
"""

# Shows whom the server calls, but no secret: MLflow never returns a webhook's. Who collects metrics needs no
# right to change anything.
_AUDIT = f"""
GET    /[ajax-]api/2.0/mlflow-aws/metrics
GET    {_V2}/webhooks
GET    {_V2}/webhooks/<id>
"""

# Has the server call addresses that the caller chooses.
_ADMINISTER = f"""
POST   {_V2}/webhooks
PATCH  {_V2}/webhooks/<id>
DELETE {_V2}/webhooks/<id>
POST   {_V2}/webhooks/<id>/test
"""

_DIRECT = "Artifacts go from the client to S3 directly; this server carries none."
_NO_JOBS = "This server runs no jobs."
_NO_GATEWAY = "This server is not a gateway to other providers' models."
_NOT_OFFERED: Mapping[str, str] = {
    "/[ajax-]api/2.0/mlflow-artifacts/<rest>": _DIRECT,
    f"{_V2}/artifacts/presigned-upload-url": _DIRECT,
    "/ajax-api/2.0/mlflow/upload-artifact": _DIRECT,
    "/ajax-api/2.0/mlflow/runs/create-promptlab-run": _DIRECT,
    "/ajax-api/3.0/jobs/<rest>": _NO_JOBS,
    "/ajax-api/3.0/mlflow/jobs/<rest>": _NO_JOBS,
    "/ajax-api/3.0/mlflow/genai/evaluate/invoke": _NO_JOBS,
    "/ajax-api/3.0/mlflow/issues/invoke": _NO_JOBS,
    "/ajax-api/3.0/mlflow/scorer/invoke": _NO_JOBS,
    f"{_V3}/scorers/online-config": _NO_JOBS,
    f"{_V3}/prompt-optimization/<rest>": _NO_JOBS,
    "/ajax-api/3.0/mlflow/demo/<rest>": "This server makes no demonstration data.",
    "/gateway/<rest>": _NO_GATEWAY,
    "/ajax-api/2.0/mlflow/gateway-proxy": _NO_GATEWAY,
    f"{_V3}/gateway/<rest>": _NO_GATEWAY,
    "/ajax-api/3.0/mlflow/assistant/<rest>": "MLflow's assistant runs commands on its host.",
    f"{_V3}/mcp-servers": "This server keeps no registry of MCP servers.",
    f"{_V3}/mcp-servers/<rest>": "This server keeps no registry of MCP servers.",
    f"{_V3}/workspaces": "This server has one workspace.",
    f"{_V3}/workspaces/<rest>": "This server has one workspace.",
}

# Their answer, not the request, names what was made.
_CREATING = frozenset(("experiments/create", "runs/create", "model-versions/create", "logged-models"))

# They may hand out a URL under which S3 serves an object to whoever has it.
_SIGNING = frozenset((
    "/get-artifact", "/model-versions/get-artifact", "/artifacts/presigned-download-url",
    "/logged-models/<id>/artifacts/files", "/get-trace-artifact",
))  # fmt: skip

_ANY_METHOD = "*"
_PARTS: Mapping[str, str] = {
    # MLflow makes these ids itself.
    "<id>": r"([A-Za-z0-9_-]{1,256})",
    "<key>": r"([^/\x00-\x1f\x7f]{1,500})",
    "<rest>": r"(.*)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route and the permission that it needs; None if nobody may use it, for the reason in `refusal`."""

    method: str
    path: str
    permission: Permission | None
    refusal: str = ""
    creates: bool = False
    signs: bool = False
    """Whether it may answer with a presigned URL. Each leaves a line in the audit log, like a change."""
    _pattern: re.Pattern[str] | None = field(default=None, repr=False, compare=False)

    @property
    def changes(self) -> bool:
        """Whether it changes what MLflow keeps."""
        return self.permission is not None and self.permission.changes and self.method != "GET"

    def fits(self, path: str) -> re.Match[str] | None:
        """The match of its variable parts, or None."""
        return None if self._pattern is None else self._pattern.fullmatch(path)


_TABLE: Mapping[Permission, str] = {
    Permission.READ: _READ,
    Permission.AUDIT: _AUDIT,
    Permission.WRITE: _WRITE,
    Permission.APPROVE: _APPROVE,
    Permission.ADMINISTER: _ADMINISTER,
}


def _routes() -> Iterator[Route]:
    for permission, table in _TABLE.items():
        for line in table.strip().splitlines():
            method, template = line.split()
            for path in _spelt_out(template):
                creates = method == "POST" and path.partition("/mlflow/")[2] in _CREATING
                yield Route(
                    method=method,
                    path=path,
                    permission=permission,
                    creates=creates,
                    signs=path.rpartition("/mlflow")[2] in _SIGNING,
                    _pattern=_pattern(path),
                )
    for template, refusal in _NOT_OFFERED.items():
        for path in _spelt_out(template):
            yield Route(
                method=_ANY_METHOD, path=path, permission=None, refusal=refusal, _pattern=_pattern(path)
            )


def _spelt_out(template: str) -> tuple[str, ...]:
    """Programs call /api/…, the user interface /ajax-api/…, and MLflow does the same for both."""
    if "[ajax-]" not in template:
        return (template,)
    return (template.replace("[ajax-]", ""), template.replace("[ajax-]", "ajax-"))


def _pattern(path: str) -> re.Pattern[str] | None:
    if "<" not in path:
        return None
    pieces = re.split(r"(<\w+>)", path)
    return re.compile("".join(_PARTS[piece] if piece in _PARTS else re.escape(piece) for piece in pieces))


ROUTES: tuple[Route, ...] = tuple(_routes())
_PLAIN = {(route.method, route.path): route for route in ROUTES if "<" not in route.path}
_VARIABLE = tuple(route for route in ROUTES if "<" in route.path)


def route_of(method: str, path: str) -> Route:
    """The route that a request means. HEAD counts as GET; OPTIONS as the path's least demanding method.

    Raises:
        NoSuchRouteError: the table holds no such route.
    """
    if method == "HEAD":
        method = "GET"
    found = _PLAIN.get((method, path)) or _PLAIN.get((_ANY_METHOD, path))
    if found is not None:
        return found
    if method == "OPTIONS":
        candidates = [route for route in ROUTES if route.path == path or route.fits(path)]
        if candidates:
            # The table is in the order of the permissions, and what nobody may use comes last.
            return candidates[0]
    for route in _VARIABLE:
        if route.method in (method, _ANY_METHOD) and route.fits(path):
            return route
    raise NoSuchRouteError(
        "unknown-route",
        f"This server has no route {method} of this path, or does not know whom to let use it.",
    )


def offers(method: str, path: str) -> bool:
    """Whether any role may use a route; MLflow has some that this server offers to nobody."""
    try:
        return route_of(method, path).permission is not None
    except NoSuchRouteError:
        return False


def require(principal: Principal, route: Route, *, place: Place, roles: RoleMap) -> None:
    """Let `principal` use `route` in `place`, or not. `roles` are named to whoever lacks the permission.

    Raises:
        PermissionDeniedError: it lacks the permission, or the route is offered to nobody.
    """
    if route.permission is None:
        raise PermissionDeniedError("not-offered", route.refusal)
    if route.permission not in rights(principal, place):
        raise PermissionDeniedError(
            "role",
            f"{route.method} {route.path} needs the role {' or '.join(roles.giving(route.permission))}; "
            f"{principal.name} is {principal.role}.",
        )
