"""Steps about who gets in: nobody without a token, nobody with a forged one, and you under your own name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from client_smoke.smoke import Smoke
from client_smoke.tokens import forgeries
from client_smoke.verdict import CannotRun, StepFailed

READ = "/api/2.0/mlflow/experiments/search?max_results=1"
CREATE_EXPERIMENT = "/api/2.0/mlflow/experiments/create"
WHOAMI = "/api/2.0/mlflow-aws/whoami"


@dataclass(frozen=True)
class Caller:
    """Who the server says that this client is."""

    principal: str
    role: str
    permissions: frozenset[str]
    own_models: str = ""
    """What the names of the models begin with that it may promote, if it may not promote others."""

    @property
    def may_write(self) -> bool:
        """Whether it logs and registers."""
        return "write" in self.permissions

    @property
    def may_promote(self) -> bool:
        """Whether it moves stages and aliases."""
        return "approve" in self.permissions


@dataclass(frozen=True)
class Promoter:
    """Who moves stages and aliases in this run."""

    principal: str


def no_token_is_refused(smoke: Smoke) -> str:
    """Without any identity: reads, the browser's own API, and a write are turned away."""
    attempts: tuple[tuple[str, str, dict[str, str] | None], ...] = (
        ("GET", READ, None),
        ("GET", READ.replace("/api/", "/ajax-api/", 1), None),
        ("POST", CREATE_EXPERIMENT, {"name": smoke.experiment_name}),
    )
    answers = []
    for method, path, body in attempts:
        answer = smoke.request_as(None, method, path, json=body)
        if method == "POST" and answer.status_code < 300:
            smoke.made_something = True
        if not _turned_away(smoke, answer):
            raise StepFailed(
                f"{method} {path} without a token answered {answer.status_code}",
                next_action="take the deployment off the network: look at the listener's rules and at "
                "whether the server's gate runs (docs/security.md)",
            )
        answers.append(f"{method} {path.split('/')[1]} {answer.status_code}")
    return ", ".join(answers)


def forged_token_is_refused(smoke: Smoke) -> str:
    """Tokens with the right look and the wrong signature are turned away."""
    refused = []
    for flaw, token in forgeries(smoke.own_token(), audience=smoke.target.url).items():
        answer = smoke.request_as(token, "GET", READ)
        if answer.status_code not in {400, 401, 403}:
            raise StepFailed(
                f"a token {flaw} was answered {answer.status_code}",
                next_action="take the deployment off the network: the server's gate does not verify "
                "signatures (docs/security.md)",
            )
        refused.append(f"{flaw}: {answer.status_code}")
    return "; ".join(refused)


def server_knows_you(smoke: Smoke) -> str:
    """Ask the server who this client is, and that the other tokens of this run have the roles they should."""
    caller = _read(smoke.request("GET", WHOAMI), whose="this client's")
    smoke.remember(caller)
    if caller.may_promote or caller.own_models:
        smoke.remember(Promoter(caller.principal))
    if (token := smoke.tokens.viewer) is not None:
        viewer = _read(smoke.request_as(token, "GET", WHOAMI), whose="the viewer's")
        if viewer.may_write:
            raise _wrong_role("viewer", viewer, needed="that may read and not write, such as viewer")
    if (token := smoke.tokens.approver) is not None:
        approver = _read(smoke.request_as(token, "GET", WHOAMI), whose="the approver's")
        if not approver.may_promote:
            raise _wrong_role("approver", approver, needed="that may promote, such as approver")
        smoke.remember(Promoter(approver.principal))
    return f"{caller.principal}, {caller.role}"


def _wrong_role(whose: str, found: Caller, *, needed: str) -> CannotRun:
    return CannotRun(
        f"the {whose} token is {found.principal}'s, who has the role {found.role}",
        next_action=f"pass the token of a principal with a role {needed}",
    )


def _read(answer: Any, *, whose: str) -> Caller:
    if answer.status_code == 200:
        found = body_of(answer)
        permissions = found.get("permissions")
        caller = Caller(
            principal=str(found.get("principal", "")),
            role=str(found.get("role", "")),
            permissions=frozenset(permissions if isinstance(permissions, list) else ()),
            own_models=str(found.get("own_models", "")),
        )
        if caller.principal and caller.role and caller.permissions:
            return caller
        raise StepFailed(
            f"{WHOAMI} answered 200 without a principal, a role and its permissions",
            next_action="check that this host is the tracking server and not another application",
        )
    message = message_of(answer)
    if answer.status_code == 401:
        raise CannotRun(
            f"{whose} token was not accepted: {message}",
            next_action="get a fresh token for this deployment's audience (docs/smoke.md, “Identity”)",
        )
    if answer.status_code == 403:
        raise CannotRun(
            f"{whose} identity has no role: {message}",
            next_action="ask who runs the deployment to map it in the [identity.roles] of its configuration",
        )
    raise StepFailed(
        f"{WHOAMI} answered {answer.status_code}: {message}",
        next_action="check that the server runs this project's image, whose gate answers this",
    )


def _turned_away(smoke: Smoke, answer: Any) -> bool:
    if answer.status_code == 401:
        return True
    # The balancer sends who has no session to the sign-in page, which is on another host.
    location = urlsplit(answer.headers.get("Location", ""))
    elsewhere = location.scheme == "https" and location.netloc != urlsplit(smoke.target.url).netloc
    return answer.status_code in {302, 303} and elsewhere


def body_of(answer: Any) -> dict[str, Any]:
    """The JSON object of an answer; empty if it is something else."""
    try:
        found = json.loads(answer.text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def message_of(answer: Any) -> str:
    """What the server said in an error, short enough to print."""
    return str(body_of(answer).get("message") or answer.text[:200].strip() or answer.reason)[:300]
