"""The address under test, checked before anything is sent to it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from client_smoke.verdict import CannotRun

_EXAMPLE = "pass the stack's TrackingUrl output, such as --tracking-uri https://mlflow.example.com"


@dataclass(frozen=True)
class TrackingTarget:
    """A tracking server's HTTPS origin (no path, no trailing slash)."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The tracking URI to give to a client; the default port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}" if self.port == 443 else f"https://{host}:{self.port}"

    @classmethod
    def parse(cls, uri: str) -> TrackingTarget:
        """Read a tracking URI; `CannotRun` if it is no HTTPS origin.

        Plain HTTP is refused here, before a bearer token could leave unencrypted; so are credentials in
        the address, which every process on the machine could read from the command line.
        """
        try:
            parts = urlsplit(uri.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise CannotRun(f"{uri!r} is not a URL: {error}", next_action=_EXAMPLE) from error
        if parts.username is not None or parts.password is not None:
            raise CannotRun(
                "the tracking URI carries a user name or password",
                next_action="remove it from the address and from your shell's history; " + _EXAMPLE,
            )
        if parts.scheme != "https":
            raise CannotRun(
                f"{uri!r} is not an https:// address, and this deployment speaks nothing else",
                next_action=_EXAMPLE,
            )
        if not host:
            raise CannotRun(f"{uri!r} names no host", next_action=_EXAMPLE)
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise CannotRun(
                f"{uri!r} has a path, query or fragment; the server lives at the root of its host",
                next_action=_EXAMPLE,
            )
        return cls(host=host, port=443 if port is None else port)
