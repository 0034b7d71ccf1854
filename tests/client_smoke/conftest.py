"""The server, an S3 that enforces IAM and a TLS front for the steps, started once."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client_smoke.environment import bound_waits, use_bounded_aws_session
from client_smoke.smoke import Smoke
from client_smoke.target import TrackingTarget
from client_smoke.tokens import Tokens
from local.parts.aws import Aws
from local.parts.certificates import CertificateAuthority, ServerCertificate
from local.parts.ports import free_port
from tests.client_smoke.deployment import Front, environment, server_context
from tests.lifecycle.conftest import identity
from tests.local.conftest import account

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.local.conftest import Account
    from tests.server.conftest import Identity, Migration

__all__ = ["account", "identity"]

TIMEOUT = 20.0
ROOT = "runs"


@dataclass(frozen=True)
class Deployment:
    """Where the server can be reached, and what its clients need in their environment."""

    target: TrackingTarget
    ca: CertificateAuthority
    bucket: str
    aws: Mapping[str, Aws]
    identity: Identity

    def environ(self, role: str) -> dict[str, str]:
        """The environment of somebody with this role."""
        aws = self.aws[role]
        keys = aws.variables()
        return environment(aws.endpoint, self.ca.bundle) | keys | {"MLFLOW_TRACKING_TOKEN": self.token(role)}

    def token(self, role: str, *, seconds: int = 3600) -> str:
        return self.identity.token(role, seconds=seconds)

    def write_profile(self, file: Path, role: str) -> None:
        """A shared credentials file with a profile of the role's name."""
        lines = [f"{name.lower()} = {value}" for name, value in self.aws[role].variables().items()]
        file.touch(mode=0o600)
        file.write_text("\n".join([f"[{role}]", *lines, ""]))


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose fake is missing fails at once instead of knocking at a closed port for minutes."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("ca"), name="Smoke Test CA")


@pytest.fixture(scope="session")
def certificate(authority: CertificateAuthority) -> ServerCertificate:
    return authority.issue("localhost", name="localhost")


@pytest.fixture(scope="session")
def deployment(
    account: Account,
    rds: RdsLike,
    identity: Identity,
    migration: Migration,
    authority: CertificateAuthority,
    certificate: ServerCertificate,
) -> Iterator[Deployment]:
    """The server's own process behind TLS, with an S3 that enforces the roles' permissions."""
    from tests.server import conftest as server

    bucket = account.instance["outputs"]["Bucket"]
    account.aws.client("s3").put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    writes = _allow("s3:PutObject", "s3:DeleteObject", on=f"arn:aws:s3:::{bucket}/{ROOT}/*")
    aws = {
        "server": account.role([*_READ, _allow("s3:PutObject", on=f"arn:aws:s3:::{bucket}/{ROOT}/sealed/*")]),
        "viewer": account.role([*_READ]),
        **{role: account.role([*_READ, writes, _sealed(bucket)]) for role in ("contributor", "approver")},
    }
    port = free_port()
    context = server_context(certificate.certificate, certificate.key, oldest=ssl.TLSVersion.TLSv1_3)
    with (
        server.deployment(rds, identity, copy_of=migration) as made,
        Front(port, context) as front,
    ):
        target = TrackingTarget("localhost", front.port)
        process = made.start(
            "serve",
            port=port,
            MLFLOW_AWS_PUBLIC_URL=target.url,
            MLFLOW_AWS_ARTIFACT_ROOT=f"s3://{bucket}/{ROOT}",
            AWS_ENDPOINT_URL_S3=account.aws.endpoint,
            **aws["server"].variables(),
        )
        try:
            server.wait_until_ready(process, port)
            yield Deployment(target, authority, bucket, aws, identity)
        finally:
            process.terminate()
            process.communicate(timeout=60)


def _allow(*actions: str, on: str = "*") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": on}


_READ = (
    _allow("s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"),
    _allow("kms:Decrypt", "kms:GenerateDataKey"),
)


def _sealed(bucket: str) -> dict[str, Any]:
    return {
        "Effect": "Deny",
        "Action": ["s3:Put*", "s3:Delete*"],
        "Resource": f"arn:aws:s3:::{bucket}/{ROOT}/sealed/*",
    }


@pytest.fixture
def client_environment(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make this process a client of the deployment."""
    import boto3

    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_")):
            monkeypatch.delenv(name)
    for name, value in deployment.environ("contributor").items():
        monkeypatch.setenv(name, value)
    added: dict[str, str] = {}
    bound_waits(added, seconds=TIMEOUT)
    for name, value in added.items():
        monkeypatch.setenv(name, value)
    use_bounded_aws_session(seconds=TIMEOUT)
    yield
    boto3.DEFAULT_SESSION = None


@pytest.fixture
def smoke(deployment: Deployment, client_environment: None, tmp_path: Path) -> Smoke:
    """A fresh run of a contributor against the deployment, in this process."""
    return Smoke(
        target=deployment.target,
        ca_file=str(deployment.ca.bundle),
        timeout=TIMEOUT,
        scratch=tmp_path,
        tokens=Tokens(viewer=deployment.token("viewer"), approver=deployment.token("approver")),
        versions={name: version(name) for name in ("mlflow", "scikit-learn", "skops")},
    )


@pytest.fixture
def offline(tmp_path: Path, authority: CertificateAuthority) -> Callable[..., Smoke]:
    """A run whose clients are the given fakes; nothing answers at its address."""

    def make(*, port: int = 1, timeout: float = 5.0, tokens: Tokens | None = None, **fakes: object) -> Smoke:
        run = Smoke(
            target=TrackingTarget("localhost", port),
            ca_file=str(authority.bundle),
            timeout=timeout,
            scratch=tmp_path,
            tokens=tokens or Tokens(),
            versions={name: version(name) for name in ("mlflow", "skops")},
        )
        run.__dict__.update(fakes)
        return run

    return make
