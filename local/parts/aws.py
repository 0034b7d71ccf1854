"""Clients of the emulated AWS API: with credentials they are given, and never beyond this machine."""

from __future__ import annotations

import functools
from dataclasses import dataclass
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
