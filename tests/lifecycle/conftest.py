"""A real server with real tokens, a registered model in it, and the session's S3."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.server.conftest import Deployment, Identity, deployment, issuers, wait_until_ready

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from model_lifecycle import Lifecycle, Registry

    from tests.conftest import RdsLike
    from tests.object_store import ObjectStore
    from tests.server.conftest import Migration

_STORE = "mlflow.store.model_registry.abstract_store"
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
class Site:
    """One server, and how to be somebody there."""

    url: str
    identity: Identity
    policy: Path
    store: ObjectStore
    bearer: Callable[[str], contextlib.AbstractContextManager[None]]

    def registry(self) -> Registry:
        from model_lifecycle import Registry

        return Registry(self.url)

    def lifecycle(self, **environ: str) -> Lifecycle:
        from model_lifecycle import Lifecycle, LoadedPolicy

        return Lifecycle(self.registry(), LoadedPolicy.load(self.policy), lambda: self.store.client, environ)

    def client(self) -> MlflowClient:
        return self.registry().client


@dataclass
class Registered:
    """A registered model whose versions are made as a contributor makes them."""

    site: Site
    name: str

    def version(self, auc: float | None = 0.8, *, files: Mapping[str, bytes] | None = None) -> str:
        """Train, log a model and register it; returns the version's number."""
        with self.site.bearer("contributor"):
            client = self.site.client()
            run = client.create_run("0").info
            if auc is not None:
                client.log_metric(run.run_id, "auc", auc)
            client.log_param(run.run_id, "depth", 4)
            prefix = f"{run.artifact_uri}/model".removeprefix(f"s3://{self.site.store.bucket}/")
            model = {"MLmodel": b"flavors: {}", "model.skops": run.run_id.encode()}
            source = self.site.store.write_model(prefix, files or model)
            made = client.create_model_version(self.name, source, run.run_id)
        return str(made.version)

    def run_id(self, version: str) -> str:
        """The run of a version."""
        with self.site.bearer("viewer"):
            return str(self.site.client().get_model_version(self.name, version).run_id)

    def overwrite(self, version: str, content: bytes, file: str = "model.skops") -> None:
        """Write over what consumers load, as nobody's permissions allow."""
        with self.site.bearer("viewer"):
            served = self.site.client().get_model_version_download_uri(self.name, version)
        self.site.store.write_model(served.removeprefix(f"s3://{self.site.store.bucket}/"), {file: content})

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
    with issuers(tmp_path_factory.mktemp("issuers")) as made:
        yield made


@pytest.fixture(scope="session")
def site(
    rds: RdsLike,
    migration: Migration,
    identity: Identity,
    object_store: ObjectStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """The server's own process, behind nothing: tokens and roles are real, TLS is the balancer's."""
    directory = tmp_path_factory.mktemp("policy")
    with deployment(rds, identity, copy_of=migration) as made:
        yield from served(made, identity, object_store, directory)


def served(
    made: Deployment, identity: Identity, store: ObjectStore, directory: Path, **environ: str
) -> Iterator[Site]:
    """A site in this deployment, with more of an environment."""
    from local.parts.ports import free_port

    policy, port = directory / "policy.toml", free_port()
    policy.write_text(POLICY)
    process = made.start("serve", port=port, MLFLOW_AWS_PUBLIC_URL=f"https://localhost:{port}", **environ)
    try:
        wait_until_ready(process, port)
        yield Site(f"http://localhost:{port}", identity, policy, store, _as(identity, store))
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _as(identity: Identity, store: ObjectStore) -> Callable[[str], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def bearer(role: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"{_STORE}.AWAIT_MODEL_VERSION_CREATE_SLEEP_INTERVAL_SECONDS", 0.1)
            patch.setenv("MLFLOW_TRACKING_TOKEN", identity.token(role))
            patch.setenv("MLFLOW_S3_ENDPOINT_URL", store.endpoint)
            patch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLEEXAMPLE")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "example-of-a-role-s-secret")
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
