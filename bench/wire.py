"""HTTP/1.1 requests as bytes, built once and only patched for each call.

A load generator that shares two cores with what it measures must not spend them on building requests.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from urllib.parse import quote, urlsplit

# As MLflow's own client sends them.
_CLIENT_HEADERS = {
    "User-Agent": f"mlflow-python-client/{version('mlflow')}",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "*/*",
    "Connection": "keep-alive",
}


@dataclass(frozen=True)
class Wire:
    """How to reach a server: address, optional TLS, and the headers of every request."""

    host: str
    port: int
    prefix: str = ""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    # Holds the bearer token of a deployed server: never shown.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def to(cls, url: str, *, headers: Mapping[str, str] | None = None, ca_file: str | None = None) -> Wire:
        """How to reach `url`; for https the certificate is verified (with `ca_file` if given).

        Raises:
            ValueError: `url` is not an http or https URL with a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"not an http(s) URL with a host: {url!r}")
        tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname, port, parts.path.rstrip("/"), tls, headers or {})

    def _head(self, method: str, path: str, *more: str) -> bytes:
        default = 443 if self.tls else 80
        host = self.host if self.port == default else f"{self.host}:{self.port}"
        named = {"Host": host, **_CLIENT_HEADERS, **self.headers}
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", *(f"{k}: {v}" for k, v in named.items()), *more]
        return "\r\n".join(lines).encode()

    def get(self, path: str, **query: str) -> bytes:
        """A GET request."""
        joined = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return self._head("GET", f"{path}?{joined}" if joined else path) + b"\r\n\r\n"

    def poster(self, path: str) -> Callable[[bytes], bytes]:
        """A function that makes a POST request to `path` from a JSON body."""
        head = self._head("POST", path, "Content-Type: application/json", "Content-Length: ")

        def post(body: bytes) -> bytes:
            return b"%b%d\r\n\r\n%b" % (head, len(body), body)

        return post

    def post_in_part(self, path: str, length: int) -> bytes:
        """The head of a POST whose body of `length` bytes the caller sends separately."""
        return self._head("POST", path, "Content-Type: application/json", f"Content-Length: {length}\r\n\r\n")
