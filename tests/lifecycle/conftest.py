"""A real server with real tokens, a registered model in it, and an S3 in memory."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.conftest import Identity, deployment, wait_until_ready

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from model_lifecycle import Lifecycle, Registry

    from tests.conftest import RdsLike
    from tests.server.conftest import Migration

POLICY = """\
version = 7

[[transitions.staging.metrics]]
name = "auc"
direction = "higher"
minimum = 0.7

[transitions.production]
manifest = true

[[transitions.production.metrics]]
name = "auc"
direction = "higher"
minimum = 0.7
no_worse_than_current_by = 0.01
"""


@dataclass
class _Object:
    version_id: str
    content: bytes
    modified: dt.datetime


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = BytesIO(content)

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        return iter(lambda: self._content.read(size), b"")


@dataclass
class MemoryS3:
    """The calls of a versioned bucket that the manifest needs, shaped as boto3's; no other part of S3."""

    objects: dict[str, list[_Object]] = field(default_factory=dict)
    markers: dict[str, dt.datetime] = field(default_factory=dict)

    def write(self, key: str, content: bytes, *, at: dt.datetime | None = None) -> str:
        made = _Object(secrets.token_hex(8), content, at or dt.datetime.now(dt.UTC).replace(microsecond=0))
        self.objects.setdefault(key, []).append(made)
        self.markers.pop(key, None)
        return made.version_id

    def mark_deleted(self, key: str) -> None:
        self.markers[key] = dt.datetime.now(dt.UTC)

    def get_paginator(self, _operation: str) -> MemoryS3:
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:  # noqa: N803 - boto3's names
        found = (key for key in self.objects if key.startswith(Prefix) and key not in self.markers)
        yield {"Contents": [{"Key": key} for key in found]}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        found = self.objects[Key][-1]
        return {
            "Body": _Body(found.content),
            "VersionId": found.version_id,
            "ETag": f'"{hashlib.sha256(found.content).hexdigest()[:32]}"',
            "LastModified": found.modified,
        }

    def head_object(self, *, Bucket: str, Key: str, VersionId: str = "") -> dict[str, Any]:  # noqa: N803
        from botocore.exceptions import ClientError

        if VersionId and any(each.version_id == VersionId for each in self.objects.get(Key, ())):
            return {"VersionId": VersionId}
        headers = {"x-amz-version-id": "marker-1"} if Key in self.markers else {}
        raise ClientError(
            {"Error": {"Code": "404"}, "ResponseMetadata": {"HTTPStatusCode": 404, "HTTPHeaders": headers}},
            "HeadObject",
        )


@dataclass
class Site:
    """One server, and how to be somebody there."""

    url: str
    identity: Identity
    policy: Path
    s3: MemoryS3
    bearer: Callable[[str], contextlib.AbstractContextManager[None]]

    def registry(self) -> Registry:
        from model_lifecycle import Registry

        return Registry(self.url)

    def lifecycle(self, **environ: str) -> Lifecycle:
        from model_lifecycle import Lifecycle, LoadedPolicy

        return Lifecycle(self.registry(), LoadedPolicy.load(self.policy), lambda: self.s3, environ)

    def client(self) -> MlflowClient:
        return self.registry().client


@dataclass
class Registered:
    """A registered model whose versions are made as a contributor makes them."""

    site: Site
    name: str

    def version(self, auc: float | None = 0.8) -> str:
        """Train, log a file and register; returns the version's number."""
        with self.site.bearer("contributor"):
            client = self.site.client()
            run = client.create_run("0").info.run_id
            if auc is not None:
                client.log_metric(run, "auc", auc)
            client.log_param(run, "depth", 4)
            prefix = f"runs/{run}/artifacts/model"
            self.site.s3.write(f"{prefix}/MLmodel", b"flavors: {}")
            self.site.s3.write(f"{prefix}/model.skops", run.encode())
            made = client.create_model_version(self.name, f"s3://example-artifacts/{prefix}", run)
        return str(made.version)

    def key(self, version: str, file: str = "model.skops") -> str:
        """The S3 key of one of a version's files."""
        with self.site.bearer("viewer"):
            run = self.site.client().get_model_version(self.name, version).run_id
        return f"runs/{run}/artifacts/model/{file}"

    def live(self, *numbers: str) -> None:
        """Bring versions to Production, one after the other, as the approver."""
        from model_lifecycle import promote

        with self.site.bearer("approver"):
            for number in numbers:
                promote(self.site.lifecycle(), self.name, number, to="staging")
                promote(self.site.lifecycle(), self.name, number, to="production")

    def stages(self) -> dict[str, str]:
        """The stage of each version."""
        with self.site.bearer("viewer"):
            versions = self.site.registry().model(self.name).versions
        return {number: each.stage for number, each in versions.items()}

    def aliases(self) -> dict[str, str]:
        """The version of each alias."""
        with self.site.bearer("viewer"):
            return dict(self.site.registry().model(self.name).aliases)


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    """Issuers of this folder's own; those of tests/server stay theirs."""
    from local.parts.certificates import CertificateAuthority
    from local.parts.token_issuer import TokenIssuer

    authority = CertificateAuthority.create(tmp_path_factory.mktemp("issuers"), name="Test issuers' CA")
    certificate = authority.issue("localhost", name="issuers")
    with TokenIssuer.create(certificate).serving() as sts, TokenIssuer.create(certificate).serving() as pool:
        yield Identity(sts, pool, authority.bundle)


@pytest.fixture(scope="session")
def site(
    rds: RdsLike, migration: Migration, identity: Identity, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The server's own process, behind nothing: tokens and roles are real, TLS is the balancer's."""
    from local.parts.ports import free_port

    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    port = free_port()
    with deployment(rds, identity, copy_of=migration) as made:
        process = made.start("serve", port=port, MLFLOW_AWS_PUBLIC_URL=f"https://localhost:{port}")
        try:
            wait_until_ready(process, port)
            yield Site(f"http://localhost:{port}", identity, policy, MemoryS3(), _as(identity))
        finally:
            process.terminate()
            process.communicate(timeout=60)


def _as(identity: Identity) -> Callable[[str], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def bearer(role: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_TOKEN", identity.token(role))
            yield

    return bearer


def new_model(site: Site) -> Registered:
    """Register a model without a version, as a contributor."""
    name = f"model-{secrets.token_hex(4)}"
    with site.bearer("contributor"):
        site.client().create_registered_model(name)
    return Registered(site, name)


@pytest.fixture
def model(site: Site) -> Registered:
    """A registered model of this test alone."""
    return new_model(site)
