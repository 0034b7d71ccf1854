"""An ECS-style credentials endpoint with made-up credentials, for the server under load.

The server signs database tokens with what it finds there, as it does in a task; the benchmark's
PostgreSQL does not look at them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=6)
        content = json.dumps(
            {
                "AccessKeyId": "ASIA" + "BENCH" * 3 + "B",
                "SecretAccessKey": "made-up-for-the-benchmark",
                "Token": "made-up-for-the-benchmark",
                "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def credentials_endpoint() -> Iterator[str]:
    """The URL of an endpoint on the loopback interface, for AWS_CONTAINER_CREDENTIALS_FULL_URI."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/credentials"
    finally:
        server.shutdown()
        server.server_close()
