"""The step about the server as such."""

from __future__ import annotations

import re

from client_smoke.identity import WHOAMI
from client_smoke.smoke import Smoke
from client_smoke.verdict import StepFailed

_OLDEST_MAJOR = 3


def server_is_healthy(smoke: Smoke) -> str:
    """Ask for health and version, then make one call that has to reach the database."""
    _get(smoke, "/health")
    server = _get(smoke, "/version").strip()
    client = smoke.versions["mlflow"]
    check_compatible(server=server, client=client)
    smoke.versions["server"] = server
    smoke.mlflow.search_experiments(max_results=1)
    return f"MLflow {server} answers this client's {client}, database included{_fast_path(smoke)}"


def _fast_path(smoke: Smoke) -> str:
    """What the server says of its fast path, if it has one; it fails unless that serves or was turned off."""
    answer = smoke.request("GET", WHOAMI)
    told = answer.json().get("fast_path") if answer.status_code == 200 else None
    if not isinstance(told, dict):
        return ""
    if told["serving"]:
        return ", the fast path too"
    if "MLFLOW_AWS_FAST_PATH" in str(told["reason"]):
        return f"; its fast path is {told['reason']}"
    raise StepFailed(
        f"process {answer.json().get('process')} answers every call without the fast path: {told['reason']}",
        next_action="remove the reason (docs/fast-path.md, “When it steps aside”), or set "
        "MLFLOW_AWS_FAST_PATH=off",
    )


def check_compatible(*, server: str, client: str) -> None:
    """Raise `StepFailed` unless the server's MLflow is 3 or newer and of the client's major version."""
    majors = [re.match(r"(\d+)\.\d+", version) for version in (server, client)]
    if majors[0] is None or majors[1] is None:
        raise StepFailed(
            f"/version answered {server[:80]!r}, which is no MLflow version",
            next_action="check that this host is the tracking server and not another application",
        )
    server_major, client_major = (int(match[1]) for match in majors if match)
    if server_major < _OLDEST_MAJOR:
        raise StepFailed(
            f"the server is MLflow {server}", next_action="deploy an image with MLflow 3 or newer"
        )
    if server_major != client_major:
        raise StepFailed(
            f"the server is MLflow {server}, this client {client}",
            next_action=f"install MLflow {server_major} here: pip install 'mlflow=={server}'",
        )


def _get(smoke: Smoke, path: str) -> str:
    response = smoke.request("GET", path)
    if response.status_code == 200:
        return response.text
    if response.status_code in {301, 302, 303, 307, 308, 401, 403}:
        raise StepFailed(
            f"{path} answered {response.status_code}: the identity of this client was not accepted",
            next_action="give the client an identity (docs/smoke.md, “Identity”)",
        )
    raise StepFailed(
        f"{path} answered {response.status_code}",
        next_action="look at the service's events and its task's log: no healthy task stands behind "
        "the load balancer",
    )
