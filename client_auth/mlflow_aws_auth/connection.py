"""One line for a notebook: everything set, everything checked, and said in words."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from mlflow_aws_auth import artifacts, provider, web_identity
from mlflow_aws_auth.errors import AwsAuthError
from mlflow_aws_auth.origin import Origin

_WHOAMI = "/api/2.0/mlflow-aws/whoami"
_DEFAULT_EXPERIMENT = "/api/2.0/mlflow/experiments/get?experiment_id=0"
_TIMEOUT = 15
_PLATFORM = "who runs the MLflow deployment"


@dataclass(frozen=True)
class Connection:
    """Who you are at an MLflow server; `problems` are those that leave you signed in, such as with S3."""

    url: str
    principal: str
    role: str
    ui_url: str
    artifact_root: str
    problems: tuple[str, ...] = ()
    may_write: bool = True

    def __str__(self) -> str:
        may = "read and write" if self.may_write else "read"
        lines = [
            f"connected to {self.url}",
            f"  you are    {self.principal}",
            f"  your role  {self.role}",
            f"  artifacts  {self.artifact_root or 'unknown'} ({'see below' if self.problems else may})",
            f"  UI         {self.ui_url}",
            *(f"problem: {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


def connect(url: str, *, quiet: bool = False) -> Connection:
    """Point MLflow (tracking and registry) at `url`, sign in with this process's AWS role, and check it all.

    Prints who you are, your role and the UI's link; call it again whenever you like. Programs that this
    process starts inherit the connection.

    Raises:
        AwsAuthError: AWS gives no token, or the server cannot be reached or does not take it. What MLflow was
            pointed at before stays.
    """
    server = Origin.of(url)
    server.require_private()
    token = provider.token_for(server)
    found = _whoami(server, token.value)
    root, problem = _artifact_root(server, token.value)
    problems = [problem] if problem else []
    role = str(found.get("role", ""))
    # A server from before permissions says the role alone.
    may_write = "write" in found["permissions"] if "permissions" in found else role != "viewer"
    if root.startswith("s3://"):
        access = artifacts.check(root, must_write=may_write)
        if access.problem:
            problems.append(_artifact_problem(access, role))
    _point_mlflow_at(server)
    connection = Connection(
        url=str(server),
        principal=str(found.get("principal", "")),
        role=role,
        ui_url=str(found.get("ui_url") or server),
        artifact_root=root,
        problems=tuple(problems),
        may_write=may_write,
    )
    if not quiet:
        print(connection)
    return connection


def whoami(url: str) -> dict[str, Any]:
    """The server's answer about the caller: principal, role, permissions, lane, ui_url.

    Raises:
        AwsAuthError: as `connect` does.
    """
    server = Origin.of(url)
    server.require_private()
    return _whoami(server, provider.token_for(server).value)


def _point_mlflow_at(server: Origin) -> None:
    import mlflow

    os.environ["MLFLOW_TRACKING_AUTH"] = provider.NAME
    os.environ["MLFLOW_TRACKING_URI"] = str(server)
    mlflow.set_tracking_uri(str(server))
    mlflow.set_registry_uri(str(server))


def _whoami(server: Origin, token: str) -> dict[str, Any]:
    answer = _get(server, _WHOAMI, token)
    found = _json(answer)
    if answer.status_code == 200 and found.get("principal") and found.get("role"):
        sent = web_identity.subject(token)
        if sent and found["principal"] != sent:
            raise AwsAuthError(
                f"AWS calls you {sent}, and {server} calls you {found['principal']}",
                next_action="send this message to them; log nothing until it is explained",
                who=_PLATFORM,
            )
        return found
    message = str(found.get("message") or f"HTTP {answer.status_code}")[:500]
    if answer.status_code == 401:
        raise AwsAuthError(
            f"{server} does not accept your token: {message}",
            next_action=f"check that {provider.AUDIENCE} (now {provider.audience_of(server)}) is the "
            "deployment's TokenAudience, that it trusts your AWS account, and this machine's clock",
            who=f"you; {_PLATFORM} if all three are right",
        )
    if answer.status_code == 403:
        raise AwsAuthError(
            f"{server} knows you as {web_identity.subject(token)}, and you have no role there: {message}",
            next_action="have this ARN added under [identity.roles] in the deployment's configuration",
            who=_PLATFORM,
        )
    if answer.status_code >= 500:
        raise AwsAuthError(
            f"{server} answered {answer.status_code}: {message}",
            next_action="try again in a minute; if it stays, have them look at the service",
            who=_PLATFORM,
        )
    raise AwsAuthError(
        f"{server} answered {answer.status_code} to {_WHOAMI}: this is not MLflow on AWS",
        next_action="use the TrackingUrl that the deployment printed",
        who="you",
    )


def _artifact_root(server: Origin, token: str) -> tuple[str, str]:
    answer = _get(server, _DEFAULT_EXPERIMENT, token)
    location = str(_json(answer).get("experiment", {}).get("artifact_location", ""))
    if answer.status_code != 200 or not location:
        return "", f"the artifact root is unknown: {server} answered {answer.status_code}"
    # The default experiment's own folder is the last part.
    return location.rsplit("/", 1)[0], ""


def _artifact_problem(access: artifacts.Access, role: str) -> str:
    needed = "read" if not access.can_read else "write"
    return (
        f"your AWS role cannot {needed} artifacts, as a {role} should. {access.problem}\n"
        f"  next: attach the deployment's policy for {role} ({role.capitalize()}PolicyArn) to your IAM role\n"
        "  who:  whoever administers your IAM role"
    )


def _get(server: Origin, path: str, token: str) -> Any:
    import requests
    from mlflow.utils.credentials import get_default_host_creds

    try:
        return requests.get(
            f"{server}{path}",
            auth=_Bearer(token),
            verify=get_default_host_creds(str(server)).verify,
            timeout=_TIMEOUT,
            allow_redirects=False,
        )
    except requests.exceptions.SSLError as error:
        raise AwsAuthError(
            f"the certificate of {server} is not trusted here: {error}",
            next_action="for a private CA, set MLFLOW_TRACKING_SERVER_CERT_PATH to its PEM file",
            who=f"you; {_PLATFORM} has the file",
        ) from error
    except requests.exceptions.RequestException as error:
        raise AwsAuthError(
            f"{server} cannot be reached: {error}",
            next_action="check the address, and your VPN if the deployment is internal",
            who=f"you; {_PLATFORM} if others cannot reach it either",
        ) from error


class _Bearer:
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _json(answer: Any) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
