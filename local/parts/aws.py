"""Clients of the emulated AWS API: with credentials they are given, and never beyond this machine."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Aws:
    """The emulated AWS API with one set of credentials; refuses an endpoint beyond this machine."""

    endpoint: str
    region: str
    account_id: str
    access_key: str
    secret_key: str
    session_token: str | None = None

    def __post_init__(self) -> None:
        require_loopback(self.endpoint)

    def __repr__(self) -> str:
        return f"Aws({self.endpoint}, {self.access_key[:4]}…)"

    def client(self, service: str) -> Any:
        """A boto3 client that reads nothing from the environment or from files."""
        return _client(self, service)

    def assume(self, role_arn: str, *, session: str, seconds: int = 3600) -> Aws:
        """The same API with temporary credentials of a role."""
        issued = self.client("sts").assume_role(
            RoleArn=role_arn, RoleSessionName=session, DurationSeconds=seconds
        )["Credentials"]
        return replace(
            self,
            access_key=issued["AccessKeyId"],
            secret_key=issued["SecretAccessKey"],
            session_token=issued["SessionToken"],
        )

    def variables(self) -> dict[str, str]:
        """The credentials, as environment variables of a shell."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": self.session_token or "",
        }


@functools.lru_cache(maxsize=64)
def _client(aws: Aws, service: str) -> Any:
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(
        aws_access_key_id=aws.access_key,
        aws_secret_access_key=aws.secret_key,
        aws_session_token=aws.session_token,
        region_name=aws.region,
    )
    return session.client(
        service,
        endpoint_url=aws.endpoint,
        config=Config(retries={"mode": "standard", "total_max_attempts": 3}, read_timeout=120),
    )


def require_loopback(url: str) -> None:
    """Raise ValueError if a URL leads away from this machine: nothing here may reach a real account."""
    if urlsplit(url).hostname not in _LOOPBACK:
        raise ValueError(f"refusing {url}: the local platform talks to this machine only")
