"""A database, issuers of tokens, and the environment that a task definition gives `serve` and `migrate`."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow_aws_server.settings import SettingsError

from local.parts.certificates import CertificateAuthority
from local.parts.token_issuer import TokenIssuer
from stacks.roles import BY_NAME
from tests.conftest import RdsLike
from tests.object_store import STORE
from tests.roles import server_roles

PROJECT = Path(__file__).resolve().parents[2]
SERVER_PYTHON = str(PROJECT / ".local" / "venvs" / "server" / "bin" / "python")
PUBLIC_HOST = "mlflow.example.com"
AUDIENCE = f"https://{PUBLIC_HOST}"
CLIENT_ID = "1example23456789"
ROLES = tuple(BY_NAME)


@dataclass(frozen=True)
class Identity:
    """The account's STS and the user pool; for each of our roles there is one IAM role and one group."""

    sts: TokenIssuer
    user_pool: TokenIssuer
    ca_file: Path

    @property
    def environ(self) -> dict[str, str]:
        """What the server has to be told of it."""
        return {
            "MLFLOW_AWS_TOKEN_ISSUERS": f"arn:aws:iam::123456789012={self.sts.url}",
            "MLFLOW_AWS_TOKEN_AUDIENCE": AUDIENCE,
            "MLFLOW_AWS_USER_POOL_ISSUER": self.user_pool.url,
            "MLFLOW_AWS_USER_POOL_CLIENT_ID": CLIENT_ID,
            "MLFLOW_AWS_ROLES": server_roles(
                {role: {"iam_roles": [self.arn(role)], "groups": [f"mlflow-{role}"]} for role in ROLES}
            ),
            "SSL_CERT_FILE": str(self.ca_file),
        }

    @staticmethod
    def arn(role: str) -> str:
        """The ARN of the IAM role that has this role."""
        return f"arn:aws:iam::123456789012:role/mlflow-{role}"

    def token(self, role: str, *, seconds: int = 3600) -> str:
        """What STS gives the IAM role that has this role."""
        return self.sts.token(subject=self.arn(role), audience=AUDIENCE, seconds=seconds)

    def user_token(self, role: str) -> str:
        """The access token of a user called `someone` in the group that has this role."""
        return self.user_pool.user_token(
            username="someone", client_id=CLIENT_ID, groups=[f"mlflow-{role}"], seconds=3600
        )


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    ca_file = tmp_path / "ca.pem"
    ca_file.touch()
    return {
        "AWS_REGION": "eu-central-1",
        "MLFLOW_AWS_DATABASE_HOST": "db.example.eu-central-1.rds.amazonaws.com",
        "MLFLOW_AWS_DATABASE_CA_FILE": str(ca_file),
        "MLFLOW_AWS_DATABASE_USER": "mlflow_server",
        "MLFLOW_AWS_MASTER_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!db-1",
        "MLFLOW_AWS_ARTIFACT_ROOT": "s3://artifacts-123/prefix",
        "MLFLOW_AWS_PUBLIC_URL": "https://mlflow.example.com/",
        "MLFLOW_AWS_WORKERS": "2",
        "MLFLOW_AWS_TOKEN_ISSUERS": "arn:aws:iam::123456789012=https://example.tokens.sts.global.api.aws",
        "MLFLOW_AWS_USER_POOL_ISSUER": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Example",
        "MLFLOW_AWS_USER_POOL_CLIENT_ID": "1example23456789",
        "MLFLOW_AWS_ROLES": server_roles(
            {"viewer": {"iam_roles": ["arn:aws:iam::123456789012:role/team/*"]}}
        ),
    }


def assert_says_what_to_do(error: SettingsError, variable: str, value: str) -> None:
    """The message names the variable, its value, what is wrong with it, and the remedy."""
    message = str(error)
    assert message.startswith(f"{variable} is {value!r}: ")
    assert message.endswith(".")
    assert len(message.split(". ")) >= 2


_MADE: list[Identity] = []


def identity_made() -> Identity:
    """The session's `identity` where no fixture can be asked for."""
    return _MADE[0]


@contextmanager
def issuers(directory: Path) -> Iterator[Identity]:
    """An STS and a user pool that publish their keys over HTTPS."""
    authority = CertificateAuthority.create(directory, name="Test issuers' CA")
    certificate = authority.issue("localhost", name="issuers")
    with TokenIssuer.create(certificate).serving() as sts, TokenIssuer.create(certificate).serving() as pool:
        yield Identity(sts, pool, authority.bundle)


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    """Two issuers that publish their keys over HTTPS for the whole session."""
    with issuers(tmp_path_factory.mktemp("issuers")) as made:
        _MADE.append(made)
        yield made
        _MADE.clear()


@pytest.fixture(scope="session")
def issuer(identity: Identity) -> TokenIssuer:
    """The account's STS."""
    return identity.sts


@pytest.fixture
def viewer_token(identity: Identity) -> str:
    return identity.token("viewer")


@pytest.fixture
def contributor_token(identity: Identity) -> str:
    return identity.token("contributor")


@pytest.fixture
def approver_token(identity: Identity) -> str:
    return identity.token("approver")


@pytest.fixture
def admin_token(identity: Identity) -> str:
    return identity.token("admin")


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


class Process(subprocess.Popen[str]):
    """A process whose output goes to a file: a full pipe would stop it."""

    def __init__(self, arguments: Sequence[str], *, env: Mapping[str, str]) -> None:
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process does
        super().__init__(arguments, env=env, stdout=self._output, stderr=subprocess.STDOUT, text=True)

    def output(self) -> str:
        """What it has written so far."""
        return os.pread(self._output.fileno(), 1 << 26, 0).decode(errors="replace")

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; returns its output."""
        self.wait(timeout)
        return self.output(), ""


@dataclass(frozen=True)
class Migration:
    """A database after `migrate`, to be copied, and its two roles, which the copies share."""

    database: str
    server_user: str
    migrator: str


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

    def start(self, command: str, *, port: int | None = None, **overrides: str) -> Process:
        """Start a sub-command; its output is collected."""
        environ = {**self.environ, **overrides}
        if port is not None:
            environ["MLFLOW_AWS_PORT"] = str(port)
        return Process([SERVER_PYTHON, "-m", "mlflow_aws_server", command], env=environ)


@contextmanager
def deployment(
    rds: RdsLike, identity: Identity | None = None, *, copy_of: Migration | None = None
) -> Iterator[Deployment]:
    """An empty database with role names of its own, or a copy of a migrated one."""
    secret = MasterSecret(rds.master, [rds.master_password])
    if copy_of is None:
        name = secrets.token_hex(4)
        database, server_user, migrator = rds.new_database(), f"server_{name}", f"migrator_{name}"
    else:
        server_user, migrator = copy_of.server_user, copy_of.migrator
        database = rds.new_database(template=copy_of.database)
        _let_in(rds, database, server_user, migrator)
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
            # The fixture `object_store` makes it answer.
            "AWS_ENDPOINT_URL_S3": STORE.endpoint,
            "MLFLOW_AWS_DATABASE_HOST": rds.host,
            "MLFLOW_AWS_DATABASE_PORT": str(rds.port),
            "MLFLOW_AWS_DATABASE_NAME": database,
            "MLFLOW_AWS_DATABASE_CA_FILE": str(rds.ca_file),
            "MLFLOW_AWS_DATABASE_USER": server_user,
            "MLFLOW_AWS_DATABASE_MIGRATOR": migrator,
            "MLFLOW_AWS_DATABASE_MAX_CONNECTIONS": "40",
            "MLFLOW_AWS_MASTER_SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!db-1",
            "MLFLOW_AWS_ARTIFACT_ROOT": STORE.root,
            "MLFLOW_AWS_PUBLIC_URL": f"https://{PUBLIC_HOST}",
            "MLFLOW_AWS_BIND": "127.0.0.1",
            "MLFLOW_AWS_WORKERS": "1",
            **(identity.environ if identity else {}),
        }
        yield Deployment(rds, database, server_user, migrator, secret, environ)


def _let_in(rds: RdsLike, database: str, *roles: str) -> None:
    # CREATE DATABASE copies all but who may connect.
    rds.administer(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
    rds.administer(f"GRANT CONNECT ON DATABASE {database} TO {', '.join(roles)}")
    rds.administer(f"GRANT CREATE ON DATABASE {database} TO {roles[-1]}")


def request(
    port: int,
    method: str,
    path: str,
    body: object = None,
    *,
    host: str = PUBLIC_HOST,
    headers: Mapping[str, str] | None = None,
    role: str | None = "admin",
) -> tuple[int, bytes]:
    """One request to a server on this machine, as the balancer would send it; `role` None is nobody."""
    bearer = {} if role is None else {"Authorization": f"Bearer {identity_made().token(role)}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(
            method,
            path,
            payload,
            {"Host": host, "Content-Type": "application/json", **bearer, **(headers or {})},
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
            if request(port, "GET", "/ready", role=None)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"the server was not ready after 90 s:\n{process.communicate()[0]}")


@pytest.fixture
def empty(rds: RdsLike, identity: Identity) -> Iterator[Deployment]:
    """A deployment whose database is empty and whose roles do not exist yet."""
    with deployment(rds, identity) as made:
        yield made


@pytest.fixture(scope="package")
def migrated(rds: RdsLike, identity: Identity, migration: Migration) -> Iterator[Deployment]:
    """A deployment after `migrate`, shared by tests that leave its schema alone."""
    with deployment(rds, identity, copy_of=migration) as made:
        yield made
