"""Commands that look at an account, in a shell that reaches this machine only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from local.state import PROJECT

ACCOUNT = "111122223333"
ARN = f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/me"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a module of `preflight` without any AWS variable but these."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=PROJECT,
        env={**os.environ, "AWS_REGION": "", "AWS_DEFAULT_REGION": "", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class _Sts(BaseHTTPRequestHandler):
    """Answers GetCallerIdentity; refuses the key `AKIAEXPIRED`."""

    def do_POST(self) -> None:
        known = "AKIAEXPIRED" not in self.headers["Authorization"]
        body = (
            "<GetCallerIdentityResponse><GetCallerIdentityResult>"
            f"<Arn>{ARN}</Arn><Account>{ACCOUNT}</Account><UserId>AROA:me</UserId>"
            "</GetCallerIdentityResult></GetCallerIdentityResponse>"
            if known
            else "<ErrorResponse><Error><Code>ExpiredToken</Code></Error></ErrorResponse>"
        ).encode()
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def sts() -> Iterator[str]:
    """The address of an STS that knows one caller."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sts)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
