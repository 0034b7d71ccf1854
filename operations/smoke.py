"""The end of `make deploy` and `make restore`: the smoke client, as whoever this shell is in AWS."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operations.command import Command, Report, Say
from operations.deployment import Deployment
from operations.errors import CannotRunError, FailedError

_PROJECT = Path(__file__).parents[1]
_WHOAMI = "/api/2.0/mlflow-aws/whoami"
# Tasks are in their target group some time before they are healthy there.
_SECONDS = 300.0
_POLL_SECONDS = 3.0
# Of this shell at any server, which MLflow's client may take before the token.
_OTHER_LOGINS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_CONNECT_SECONDS, _READ_SECONDS = 5, 30


def smoke(deployment: Deployment, say: Say) -> None:
    """Wait until the server answers, and run the smoke client.

    Raises:
        CannotRunError: the server cannot be reached from here, or this shell's role does not write there.
        FailedError: the server does not answer, or a step failed.
    """
    url = deployment.tracking_url(os.environ)
    token = _token(deployment)
    caller = _caller(url, token, say)
    if "write" not in caller["permissions"]:
        raise CannotRunError(f"{caller['principal']} is {caller['role']} there, and the smoke client writes")
    environ = {name: value for name, value in os.environ.items() if name not in _OTHER_LOGINS}
    environ |= dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), deployment.region)
    done = subprocess.run(
        [sys.executable, "-m", "client_smoke", "--tracking-uri", url],
        cwd=_PROJECT,
        env={**environ, "MLFLOW_TRACKING_TOKEN": token},
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode == 2:
        raise CannotRunError("see above")
    if done.returncode:
        raise FailedError(f"the smoke client failed, see above; to try again: make smoke URL={url}")


def _token(deployment: Deployment) -> str:
    """A token of this shell's role in AWS for the server."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        issued = deployment.client("sts").get_web_identity_token(
            Audience=[deployment.output("TokenAudience")], SigningAlgorithm="RS256", DurationSeconds=900
        )
    except (BotoCoreError, ClientError) as error:
        raise CannotRunError(f"AWS gives this shell no token for the server: {error}") from error
    return str(issued["WebIdentityToken"])


def _caller(url: str, token: str, say: Say) -> Mapping[str, Any]:
    """Who the server says that the token's principal is."""
    import requests

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            answer = requests.get(
                f"{url}{_WHOAMI}",
                # Not a header, for which requests takes what it finds in a .netrc file.
                auth=sign,
                verify=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True,
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise CannotRunError(f"{url} cannot be reached from here: {error}") from error
        if answer.status_code < 500:
            break
        if time.monotonic() > deadline:
            raise FailedError(f"{url} still answers {answer.status_code} after {_SECONDS:.0f} seconds")
        say(f"{url} answers {answer.status_code} …")
        time.sleep(_POLL_SECONDS)
    if answer.status_code != 200:
        raise CannotRunError(
            f"the server does not know this shell's role (docs/connect.md): {answer.status_code} "
            f"{answer.text[:300]}"
        )
    found: Mapping[str, Any] = answer.json()
    return found


def later(deployment: Deployment) -> str:
    """The command for somebody who can."""
    return f"make smoke URL={deployment.output('TrackingUrl')}"


def _run(deployment: Deployment, _options: argparse.Namespace, say: Say) -> Report:
    try:
        smoke(deployment, say)
    except CannotRunError as error:
        raise CannotRunError(
            f"it was not run: {error}\n  later, signed in (docs/connect.md): {later(deployment)}"
        ) from error
    except FailedError as error:
        raise FailedError(
            f"{error}\n  {deployment.name} is deployed. The way back is to deploy the former version; if the "
            f"migration drained, make restore ENV={deployment.name} SNAPSHOT=… with it: the migration's log "
            "and signal name the snapshot (docs/operations.md#roll-back)"
        ) from error
    return Report(text="smoke: every step passed", document={"passed": True})


COMMAND = Command(
    name="smoke", help="prove the deployment with the smoke client, if this shell can", run=_run
)
