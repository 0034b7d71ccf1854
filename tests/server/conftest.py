"""A database and an environment for `serve` and `migrate`, as a task definition would give them."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import RdsLike

PROJECT = Path(__file__).resolve().parents[2]
SERVER_PYTHON = str(PROJECT / ".local" / "venvs" / "server" / "bin" / "python")
PUBLIC_HOST = "mlflow.example.com"


@dataclass
class MasterSecret:
    """Secrets Manager with one secret: answers in turn with `passwords`, the last of them for ever."""

    master: str
    passwords: list[str]
    reads: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> str:
        with self._lock:
            password = self.passwords[min(self.reads, len(self.passwords) - 1)]
            self.reads += 1
        return json.dumps({"SecretString": json.dumps({"username": self.master, "password": password})})


@contextmanager
def secrets_manager(secret: MasterSecret) -> Iterator[str]:
    """Serve `secret` over HTTP; yields the endpoint's URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = secret.read().encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Deployment:
    """One database, its two roles, and the environment of the tasks that use it."""

    rds: RdsLike
    database: str
    server_user: str
    migrator: str
    secret: MasterSecret
    environ: dict[str, str]

    def migrate(self, **overrides: str) -> subprocess.CompletedProcess[str]:
        """Run `migrate` to its end."""
        return subprocess.run(
            [SERVER_PYTHON, "-m", "mlflow_aws_server", "migrate"],
            env={**self.environ, **overrides},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, command: str, *, port: int | None = None, **overrides: str) -> subprocess.Popen[str]:
        """Start a sub-command; its output is collected."""
        environ = {**self.environ, **overrides}
        if port is not None:
            environ["MLFLOW_AWS_PORT"] = str(port)
        return subprocess.Popen(
            [SERVER_PYTHON, "-m", "mlflow_aws_server", command],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def deployment(rds: RdsLike, ca_file: Path | None = None) -> Iterator[Deployment]:
    """An empty database with role names of its own."""
    name = secrets.token_hex(4)
    secret = MasterSecret(rds.master, [rds.master_password])
    database = rds.new_database()
    with secrets_manager(secret) as endpoint:
        environ = {
            **{key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TMPDIR")},
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example-of-a-role-s-secret",
            "AWS_SESSION_TOKEN": "example-of-a-session-token",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": endpoint,
            "MLFLOW_AWS_DATABASE_HOST": rds.host,
            "MLFLOW_AWS_DATABASE_PORT": str(rds.port),
            "MLFLOW_AWS_DATABASE_NAME": database,
            "MLFLOW_AWS_DATABASE_CA_FILE": str(ca_file or rds.ca_file),
            "MLFLOW_AWS_DATABASE_USER": f"server_{name}",
            "MLFLOW_AWS_DATABASE_MIGRATOR": f"migrator_{name}",
            "MLFLOW_AWS_DATABASE_MAX_CONNECTIONS": "40",
            "MLFLOW_AWS_MASTER_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!db-1",
            "MLFLOW_AWS_ARTIFACT_ROOT": "s3://example-artifacts/runs",
            "MLFLOW_AWS_PUBLIC_URL": f"https://{PUBLIC_HOST}",
            "MLFLOW_AWS_BIND": "127.0.0.1",
            "MLFLOW_AWS_WORKERS": "1",
        }
        yield Deployment(rds, database, f"server_{name}", f"migrator_{name}", secret, environ)


def request(
    port: int,
    method: str,
    path: str,
    body: object = None,
    *,
    host: str = PUBLIC_HOST,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """One request to a server on this machine, as the balancer would send it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(
            method, path, payload, {"Host": host, "Content-Type": "application/json", **(headers or {})}
        )
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_until_ready(process: subprocess.Popen[str], port: int) -> None:
    """Return when `/ready` says 200; fail with the process's output if it ends before."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}:\n{process.communicate()[0]}")
        try:
            if request(port, "GET", "/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"the server was not ready after 90 s:\n{process.communicate()[0]}")


@pytest.fixture
def empty(rds: RdsLike) -> Iterator[Deployment]:
    """A deployment whose database is empty and whose roles do not exist yet."""
    with deployment(rds) as made:
        yield made


@pytest.fixture(scope="package")
def migrated(rds: RdsLike) -> Iterator[Deployment]:
    """A deployment after `migrate`, shared by tests that leave its schema alone."""
    with deployment(rds) as made:
        finished = made.migrate()
        assert finished.returncode == 0, finished.stderr
        yield made
