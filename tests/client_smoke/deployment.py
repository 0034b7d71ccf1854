"""A small stand-in for the deployment, of real parts: stock MLflow behind the server's own gate and
provenance, an S3 and KMS API, a TLS 1.3 front.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from local.parts.token_issuer import SigningKey
from tests.client_smoke.guarded import AUDIENCE, ISSUER, KEYS_FILE, role_arn

REGION = "eu-central-1"
BUCKET = "smoke-test-artifacts"
_ROOT = Path(__file__).parents[2]
_APPLICATION = "tests.client_smoke.guarded:create_app"
_EMULATOR = _ROOT / ".local/venvs/emulator/bin/python"
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


def token(key: SigningKey, role: str, *, seconds: int = 3600) -> str:
    """What STS would give the stand-in's IAM role of this name."""
    now = int(time.time())
    return key.sign({"iss": ISSUER, "aud": AUDIENCE, "sub": role_arn(role), "iat": now, "exp": now + seconds})


def free_port() -> int:
    """A TCP port on the loopback address that nobody uses right now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def aws_api(folder: Path) -> Iterator[str]:
    """The emulator's S3 and KMS with a versioned, KMS-encrypted bucket; yields its endpoint."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "PERSIST_STATE": "0",
    }
    command = [str(_EMULATOR), "-m", "ministack"]
    with _process(command, environ, folder / "aws.log", ready=f"{endpoint}/_ministack/health"):
        s3 = s3_client(endpoint)
        kms = boto3.session.Session().client("kms", endpoint_url=endpoint, **_keys())
        key = kms.create_key()["KeyMetadata"]["Arn"]
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
        s3.put_bucket_encryption(
            Bucket=BUCKET,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": rule, "BucketKeyEnabled": True}]
            },
        )
        yield endpoint


def s3_client(endpoint: str) -> Any:
    """An S3 client of the stand-in with keys that exist nowhere else."""
    return boto3.session.Session().client("s3", endpoint_url=endpoint, **_keys())


def _keys() -> dict[str, str]:
    return {
        "region_name": REGION,
        "aws_access_key_id": _AWS["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": _AWS["AWS_SECRET_ACCESS_KEY"],
        "aws_session_token": _AWS["AWS_SESSION_TOKEN"],
    }


@contextmanager
def mlflow_server(folder: Path, aws_endpoint: str, key: SigningKey) -> Iterator[int]:
    """MLflow on SQLite that leaves artifacts to its clients and believes tokens of `key`; yields its port.

    The application, behind the gate, and settings of `mlflow server --no-serve-artifacts`, without the
    command line that would import MLflow twice.
    """
    port = free_port()
    keys = folder / "jwks.json"
    keys.write_text(json.dumps({"keys": [key.public_jwk]}))
    environ = environment(aws_endpoint) | {
        KEYS_FILE: str(keys),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": f"s3://{BUCKET}/runs",
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", _APPLICATION, "--port", str(port)]
    with _process(command, environ, folder / "mlflow.log", ready=f"http://127.0.0.1:{port}/health"):
        yield port


@contextmanager
def _process(command: list[str], environ: dict[str, str], log: Path, *, ready: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=log.parent,
        )
    try:
        _wait_until_ready(process, ready, log)
        yield
    finally:
        # Its own session, so this ends the workers of exactly this process and nothing else.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{url} never became ready:\n{log.read_text()[-3000:]}")


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
