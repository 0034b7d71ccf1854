"""What the process must look like before a client library is imported: trust, credentials, bounded waits."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from client_smoke.verdict import CannotRun

if TYPE_CHECKING:
    import botocore.session
    from boto3.session import Session

# What a user's shell may carry from other work and would change what this proof proves.
_FOREIGN = (
    "MLFLOW_ACTIVE_MODEL_ID",
    "MLFLOW_ARTIFACT_LOCATION",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_S3_UPLOAD_EXTRA_ARGS",
)
_TRUST = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_GET_CREDENTIALS = (
    "assume the client role (aws sso login, aws sts assume-role, or run where the role is attached) "
    "and try again"
)


def ca_bundle(environ: Mapping[str, str]) -> str:
    """The PEM file of trusted authorities that MLflow's own HTTP client will use in this environment.

    Raises `CannotRun` if verification is switched off or the named file is not there: a proof that trusts
    anybody proves nothing.
    """
    if environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"true", "1"}:
        raise CannotRun(
            "MLFLOW_TRACKING_INSECURE_TLS is set, so the client would trust anybody",
            next_action="unset it; name a private CA with MLFLOW_TRACKING_SERVER_CERT_PATH=/path/to/ca.pem",
        )
    for name in _TRUST:
        if path := environ.get(name):
            if not Path(path).is_file():
                raise CannotRun(
                    f"{name} names {path}, which is not a file",
                    next_action="point it at the PEM file of the CA that issued the server's certificate",
                )
            return path
    import certifi

    return certifi.where()


def bound_waits(environ: MutableMapping[str, str], *, seconds: float) -> None:
    """Make MLflow's client give up in time and keep to itself; call before importing it.

    Its defaults are 120 seconds a request and 7 retries with exponential back-off: a quarter of an hour for
    one unreachable host.
    """
    for name in _FOREIGN:
        environ.pop(name, None)
    environ.update(
        MLFLOW_HTTP_REQUEST_TIMEOUT=str(max(1, math.ceil(seconds))),
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
        MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="1",
        MLFLOW_HTTP_REQUEST_BACKOFF_JITTER="0",
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
        GIT_PYTHON_REFRESH="quiet",
    )


def require_temporary(access_key: str | None, session_token: str | None) -> None:
    """Accept only credentials that expire; `CannotRun` says how to get some. Secrets are never printed."""
    if not access_key:
        raise CannotRun("no AWS credentials were found", next_action=_GET_CREDENTIALS)
    if access_key.startswith("AKIA"):
        raise CannotRun(
            "the AWS credentials are a long-lived access key (AKIA…), which this deployment has no place for",
            next_action=f"delete or disable that key in IAM, then {_GET_CREDENTIALS}",
        )
    if not session_token:
        raise CannotRun(
            f"the AWS credentials ({access_key[:4]}…) have no session token, so they are not temporary",
            next_action=f"set AWS_SESSION_TOKEN with them, or {_GET_CREDENTIALS}",
        )


def use_bounded_aws_session(*, seconds: float) -> None:
    """Check the ambient AWS credentials and make every boto3 client of this process give up in time.

    MLflow asks boto3's default session for its S3 client, so a default client configuration there bounds
    MLflow too. Raises `CannotRun` for missing, long-lived or unusable credentials.
    """
    import boto3

    boto3.setup_default_session(botocore_session=_bounded(seconds=seconds))


def bounded_aws_session(profile: str, *, seconds: float) -> Session:
    """A session of this profile's credentials, beside the ambient one, as careful and as bounded."""
    import boto3

    return boto3.session.Session(botocore_session=_bounded(seconds=seconds, profile=profile))


def _bounded(*, seconds: float, profile: str | None = None) -> botocore.session.Session:
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    # The other SDKs and the CLI read AWS_REGION, boto3 does not; containers are given nothing else.
    if region := os.environ.get("AWS_REGION"):
        os.environ.setdefault("AWS_DEFAULT_REGION", region)
    try:
        session = botocore.session.Session(profile=profile)
        session.set_default_client_config(
            Config(
                connect_timeout=seconds,
                read_timeout=seconds,
                retries={"mode": "standard", "total_max_attempts": 2},
            )
        )
        credentials = session.get_credentials()
        frozen = credentials.get_frozen_credentials() if credentials is not None else None
    except BotoCoreError as error:
        whose = f" of the profile {profile}" if profile else ""
        raise CannotRun(
            f"AWS credentials{whose} cannot be loaded: {error}", next_action=_GET_CREDENTIALS
        ) from error
    require_temporary(
        frozen.access_key if frozen is not None else None, frozen.token if frozen is not None else None
    )
    if session.get_config_variable("region") is None:
        raise CannotRun(
            "no AWS region is set",
            next_action="export AWS_REGION with the region of the deployment, such as eu-central-1",
        )
    return session


def process_environment() -> MutableMapping[str, str]:
    """The environment of this process."""
    return os.environ
