"""Two ways to the same server, over raw sockets: a client library would correct an attack."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HOST = "mlflow.example.com"
CUT_OFF = 0
"""The status of a connection that was closed without a response."""

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Request:
    """A request line and a body; `headers` come after Host and the body's own."""

    method: str
    target: str
    body: object = None
    headers: Headers = ()
    host: str = HOST


@dataclass(frozen=True)
class Response:
    """The response."""

    status: int
    head: str
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The value of a header, the first if there are several."""
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.strip().lower() == name:
                return value.strip()
        return None

    def cookies(self) -> dict[str, str]:
        """The cookies it sets."""
        lines = [line.partition(":") for line in self.head.split("\r\n")[1:]]
        pairs = [
            value.strip().partition(";")[0].partition("=")
            for key, _, value in lines
            if key.lower() == "set-cookie"
        ]
        return {name: value for name, _, value in pairs}


@dataclass(frozen=True)
class Door:
    """An address of the server, or of what stands in front of it."""

    name: str
    port: int
    tls: ssl.SSLContext | None = None

    def send(self, request: Request, headers: Headers = ()) -> Response:
        """Send a request with more headers, exactly as given, and wait for the whole response."""
        body = b"" if request.body is None else json.dumps(request.body).encode()
        lines = [f"{request.method} {request.target} HTTP/1.1", f"Host: {request.host}"]
        if request.body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (*request.headers, *headers)]
        if not any(line.lower().startswith("connection:") for line in lines):
            lines.append("Connection: close")
        raw = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
        return _answer(self._exchange(raw))

    def _exchange(self, raw: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as plain:
            connection: socket.socket = plain
            if self.tls is not None:
                connection = self.tls.wrap_socket(plain, server_hostname="localhost")
            received = b""
            # A server that refuses a body as too large need not read all of it.
            with connection, contextlib.suppress(ConnectionError, ssl.SSLError):
                connection.sendall(raw)
                while not _is_whole(received):
                    chunk = connection.recv(65536)
                    if not chunk:
                        break
                    received += chunk
            return received


def _is_whole(received: bytes) -> bool:
    """Whether the response is complete: not every refusal closes the connection."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return head.startswith(b"HTTP/1.1 101")


def _answer(received: bytes) -> Response:
    if not received:
        return Response(status=CUT_OFF, head="", body=b"")
    head, _, body = received.partition(b"\r\n\r\n")
    text = head.decode("latin-1")
    assert text.startswith("HTTP/1."), f"no answer: {received[:200]!r}"
    return Response(status=int(text.split(" ", 2)[1]), head=text, body=body)
