"""Environments for processes: nothing ambient for the platform's own, all a client needs for the user's."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Without these, an SDK would look for credentials on this machine and its network.
NO_AMBIENT_AWS: Mapping[str, str] = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_KEPT = ("LANG", "LC_ALL", "TZ", "TERM", "NO_COLOR", "COLUMNS", "HOME", "USER", "LOGNAME", "TMPDIR")
# These would send a client elsewhere or give it another identity.
_UNSET = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_REGISTRY_URI",
)


def clean(**more: str) -> dict[str, str]:
    """An environment for a child process: variables of user and terminal, none of AWS's or MLflow's."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PATH": os.environ.get("PATH", os.defpath), **NO_AMBIENT_AWS, **more}


@dataclass(frozen=True)
class ClientEnvironment:
    """What any stock MLflow client, boto3 program or notebook needs to use the platform."""

    tracking_url: str
    ca_file: Path
    aws_endpoint: str
    region: str
    access_key: str
    secret_key: str
    session_token: str
    token: str
    audience: str

    def variables(self) -> dict[str, str]:
        """The variables by name."""
        return {
            "MLFLOW_TRACKING_URI": self.tracking_url,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.ca_file),
            "AWS_ENDPOINT_URL": self.aws_endpoint,
            "MLFLOW_S3_ENDPOINT_URL": self.aws_endpoint,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": self.session_token,
            # Valid for an hour; for longer programs, the client plugin renews it.
            "MLFLOW_TRACKING_TOKEN": self.token,
            # Tokens are for the deployed URL, which differs from the laptop's.
            "MLFLOW_AWS_AUDIENCE": self.audience,
        }

    def shell(self, ambient: Mapping[str, str] = os.environ) -> str:
        """Lines for `eval` in a POSIX shell: exports, and what must not be set beside them."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.variables().items()]
        lines.append(f"unset {' '.join(_UNSET)}")
        if any(
            ambient.get(name)
            for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
        ):
            # A proxy would use its own machine's loopback, not this one's.
            for name in ("NO_PROXY", "no_proxy"):
                before = ambient.get(name, "")
                hosts = [host for host in ("localhost", "127.0.0.1") if host not in before.split(",")]
                lines.append(f"export {name}={shlex.quote(','.join([*filter(None, [before]), *hosts]))}")
        return "\n".join(lines) + "\n"
