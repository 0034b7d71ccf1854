"""Steps about what each role may not do, and who promotes in this run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from client_smoke.identity import CREATE_EXPERIMENT, READ, Caller, body_of
from client_smoke.smoke import Smoke
from client_smoke.tracking import LoggedRun
from client_smoke.verdict import CannotRun, NotTried, StepFailed

_API = "/api/2.0/mlflow"
_GATE = "look at the server's route table and log: its gate let through what this role may not do"


def viewer_is_refused_a_write(smoke: Smoke) -> str:
    """With a viewer's token a read works, and creating or changing anything is refused."""
    token = smoke.tokens.viewer
    if token is None:
        raise NotTried("no viewer token was given", next_action="pass --viewer-token-file FILE")
    run = smoke.recall(LoggedRun)
    read = smoke.request_as(token, "GET", READ)
    if read.status_code != 200:
        raise CannotRun(
            f"the viewer may not even read: {READ} answered {read.status_code}",
            next_action="pass a fresh token of a principal with the role viewer",
        )
    name = f"{smoke.experiment_name}-by-viewer"
    attempts: tuple[tuple[str, dict[str, Any]], ...] = (
        (CREATE_EXPERIMENT, {"name": name}),
        (f"{_API}/runs/log-metric", {"run_id": run.id, "key": "viewer", "value": 1.0, "timestamp": 1}),
        (f"{_API}/runs/delete", {"run_id": run.id}),
        (f"{_API}/registered-models/create", {"name": name}),
    )
    for path, body in attempts:
        must_be_denied(smoke, token, path, body, who="a viewer")
    return f"read 200; {len(attempts)} writes refused with 403"


def contributor_is_refused_a_promotion(smoke: Smoke) -> str:
    """As a contributor, moving a stage or an alias is refused."""
    caller = smoke.recall(Caller)
    require_contributor(caller)
    version = {"name": smoke.model_name, "version": "1"}
    attempts: tuple[tuple[str, dict[str, Any]], ...] = (
        (f"{_API}/model-versions/transition-stage", version | {"stage": "Production"}),
        (f"{_API}/registered-models/alias", version | {"alias": "champion"}),
    )
    for path, body in attempts:
        must_be_denied(smoke, smoke.own_token(), path, body, who="a contributor")
    return "stage and alias refused with 403"


@contextmanager
def as_promoter(smoke: Smoke) -> Iterator[None]:
    """Within the block, MLflow's client acts as somebody who may move stages and aliases.

    That is the approver whose token was given, else the caller. Raises `NotTried` if neither may.
    """
    caller = smoke.recall(Caller)
    if smoke.tokens.approver is not None:
        with smoke.acting_as(smoke.tokens.approver):
            yield
    elif caller.may_promote or caller.own_models:
        yield
    else:
        raise NotTried(
            f"your role ({caller.role}) may not promote", next_action="pass --approver-token-file FILE"
        )


def require_contributor(caller: Caller) -> None:
    """Raise `NotTried` unless this client logs and does not promote."""
    if caller.may_promote or not caller.may_write:
        raise NotTried(
            f"this client's role is {caller.role}", next_action="run the smoke client as a contributor"
        )


def must_be_denied(
    smoke: Smoke,
    token: str | None,
    path: str,
    body: dict[str, Any],
    *,
    who: str,
    next_action: str = _GATE,
) -> None:
    """Send this as `who`; anything but a refusal for want of a permission fails the step."""
    answer = smoke.request_as(token, "POST", path, json=body)
    code = body_of(answer).get("error_code")
    if answer.status_code != 403 or code != "PERMISSION_DENIED":
        seen = f"POST {path} by {who} answered {answer.status_code}" + (f" {code}" if code else "")
        raise StepFailed(f"{seen}, not 403 PERMISSION_DENIED", next_action=next_action)
