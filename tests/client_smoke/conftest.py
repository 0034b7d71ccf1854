"""A real server, a real S3 API and a real TLS front for the steps, started once."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from client_smoke.environment import bound_waits, use_bounded_aws_session
from client_smoke.smoke import Smoke
from client_smoke.target import TrackingTarget
from client_smoke.tokens import Tokens
from local.parts.certificates import CertificateAuthority, ServerCertificate
from local.parts.token_issuer import SigningKey
from tests.client_smoke.deployment import Front, aws_api, environment, mlflow_server, server_context, token

TIMEOUT = 20.0


@dataclass(frozen=True)
class Deployment:
    """Where the stand-in can be reached, and what a client of it needs in its environment."""

    target: TrackingTarget
    aws_endpoint: str
    ca: CertificateAuthority
    key: SigningKey

    @property
    def environ(self) -> dict[str, str]:
        """A contributor's environment."""
        return environment(self.aws_endpoint, self.ca.bundle) | {
            "MLFLOW_TRACKING_TOKEN": self.token("contributor")
        }

    def token(self, role: str, *, seconds: int = 3600) -> str:
        return token(self.key, role, seconds=seconds)


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
    tmp_path_factory: pytest.TempPathFactory, authority: CertificateAuthority, certificate: ServerCertificate
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    key = SigningKey.generate()
    context = server_context(certificate.certificate, certificate.key, oldest=ssl.TLSVersion.TLSv1_3)
    with (
        aws_api(folder) as aws_endpoint,
        mlflow_server(folder, aws_endpoint, key) as port,
        Front(port, context) as front,
    ):
        yield Deployment(TrackingTarget("localhost", front.port), aws_endpoint, authority, key)


@pytest.fixture
def client_environment(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make this process a client of the deployment."""
    import boto3

    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_")):
            monkeypatch.delenv(name)
    for name, value in deployment.environ.items():
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
