"""The route table for people: `python -m mlflow_aws_server.identity.table > docs/identity-routes.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from mlflow_aws_server.identity.access import ROUTES, Route
from mlflow_aws_server.identity.roles import Permission

_MEANING = {
    Permission.READ: "Reads, and changes nothing. Some reads are POST requests.",
    Permission.AUDIT: "Reads what only administrators and auditors need.",
    Permission.WRITE: "Logs, registers, describes; deletes runs and logged models, which can be restored.",
    Permission.APPROVE: "Moves stages and aliases; deletes what others work with or nobody can restore.",
    Permission.ADMINISTER: "Has the server call addresses outside.",
}


def as_markdown() -> str:
    """The table, one section for each permission."""
    lines = [
        "# Which permission each route needs",
        "",
        "Made by `python -m mlflow_aws_server.identity.table`; a test holds it to the code. Which role gives",
        "which permission: [security.md](security.md). `/health` alone needs no identity. A route that is",
        "not listed is denied to everybody. HEAD needs what GET needs, OPTIONS what the least demanding",
        "method of the path needs.",
        "Programs call `/api/…`, the user interface `/ajax-api/…`: `/[ajax-]api/…` stands for both.",
    ]
    for permission in Permission:
        lines += ["", f"## {permission}", "", _MEANING[permission], "", "| Method | Path |", "|---|---|"]
        lines += [f"| {m} | `{p}` |" for m, p in _merged(r for r in ROUTES if r.permission is permission)]
    lines += ["", "## Nobody", "", "This deployment does not offer them.", "", "| Path | Why |", "|---|---|"]
    refusals = {route.path: route.refusal for route in ROUTES if route.permission is None}
    for _, path in _merged(route for route in ROUTES if route.permission is None):
        lines.append(f"| `{path}` | {refusals[path.replace('[ajax-]', '')]} |")
    return "\n".join(lines) + "\n"


def _merged(routes: Iterable[Route]) -> list[tuple[str, str]]:
    listed = {(route.method, route.path) for route in routes}
    merged = set()
    for method, path in listed:
        twin = (method, "/api" + path.removeprefix("/ajax-api"))
        if path.startswith("/ajax-api") and twin in listed:
            continue
        both = path.startswith("/api") and (method, "/ajax-" + path[1:]) in listed
        merged.add((method, path.replace("/api", "/[ajax-]api", 1) if both else path))
    return sorted(merged, key=lambda pair: (pair[1], pair[0]))


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
