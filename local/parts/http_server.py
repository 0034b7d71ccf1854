"""A JSON server on loopback, with or without TLS, for stand-ins of services."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from local.parts.certificates import ServerCertificate


class JsonHandler(BaseHTTPRequestHandler):
    """Answers in JSON and logs nothing."""

    timeout = 10

    def answer(self, status: int, document: Any) -> None:
        """Send a whole response."""
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(
    handler: type[JsonHandler], *, certificate: ServerCertificate | None = None, port: int = 0
) -> Iterator[int]:
    """Serve on a loopback port (0: any free one) until the end of the `with` block; yields the port."""
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate.certificate, certificate.key)
        # Handshakes happen in each connection's thread, so a client that never starts one blocks nobody.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
