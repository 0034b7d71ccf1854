"""Where a token may go: the origin (RFC 6454) of the tracking server, over TLS."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlflow_aws_auth.errors import AwsAuthError

_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an http or https URL.

        Raises:
            AwsAuthError: it is another kind of address, names no host, or carries credentials.
        """
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _unusable(f"{url!r} is not a URL: {error}") from error
        if parts.username is not None or parts.password is not None:
            raise _unusable("the tracking URI carries a user name or password")
        if parts.scheme not in _PORTS or not host:
            raise _unusable(f"the tracking URI {url!r} is not the address of a server")
        return cls(parts.scheme, host.rstrip("."), _PORTS[parts.scheme] if port is None else port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    def require_private(self) -> None:
        """Raise `AwsAuthError` if a token sent here could be read on the way: plain http beyond loopback."""
        if self.scheme == "https" or _is_loopback(self.host):
            return
        raise AwsAuthError(
            f"{self} is not encrypted, so the token was not sent",
            next_action=f"use https://{self.host}",
            who="you",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _unusable(seen: str) -> AwsAuthError:
    return AwsAuthError(
        seen,
        next_action="set MLFLOW_TRACKING_URI to the deployment's TrackingUrl, such as https://mlflow.example.com",
        who="you",
    )
