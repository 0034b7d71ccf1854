"""What stands around the server's process in these tests: a client's environment, and a TLS front."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REGION = "eu-central-1"
_ROOT = Path(__file__).parents[2]
# Nothing here may ever find a real account: no profile, no metadata service, and keys that exist nowhere.
_AWS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "ASIATESTTESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_SESSION_TOKEN": "nothing",
}


def environment(aws_endpoint: str, ca_file: Path | None = None) -> dict[str, str]:
    """What a client process of the stand-in gets as its whole environment."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/tmp"),
        "AWS_ENDPOINT_URL": aws_endpoint,
        "MLFLOW_S3_ENDPOINT_URL": aws_endpoint,
        "PYTHONPATH": str(_ROOT),
    } | _AWS
    if ca_file is not None:
        environ["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(ca_file)
    return environ


def free_port() -> int:
    """A TCP port on the loopback address that nobody uses right now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Front:
    """A TCP listener in front of another port: TLS if it has a context, else plain."""

    upstream: int
    context: ssl.SSLContext | None
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def __enter__(self) -> Front:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # close() alone leaves the accept() of the other thread, and with it the port, alive.
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            secure = self.context.wrap_socket(client, server_side=True) if self.context else client
            server = socket.create_connection(("127.0.0.1", self.upstream))
        except OSError:
            client.close()
            return
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # An SSLSocket is not safe for a read and a write at once, so the upstream side is only ever
        # read between client messages: HTTP/1.1 without pipelining takes turns.
        with closing(secure), closing(server), suppress(OSError):
            _take_turns(secure, server)


def _take_turns(client: socket.socket, server: socket.socket) -> None:
    import selectors

    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, client)
        while True:
            for key, _ in selector.select():
                source: Any = key.fileobj
                data = source.recv(65536)
                while isinstance(source, ssl.SSLSocket) and source.pending():
                    data += source.recv(source.pending())
                if not data:
                    return
                key.data.sendall(data)


def server_context(certificate: Path, key: Path, *, oldest: ssl.TLSVersion) -> ssl.SSLContext:
    """A TLS server context that accepts `oldest` and newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = oldest
    context.load_cert_chain(certificate, key)
    return context


def run_smoke(
    *arguments: str, environ: dict[str, str], timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """`python -m client_smoke` as its own process."""
    return subprocess.run(
        [sys.executable, "-m", "client_smoke", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=_ROOT,
        check=False,
    )


def steps_by_name(report: Path) -> dict[str, dict[str, Any]]:
    """The steps of a JSON report under their names."""
    return {step["name"]: step for step in json.loads(report.read_text())["steps"]}
