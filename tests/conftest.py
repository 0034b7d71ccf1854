"""Fixtures for every test: no way to a real AWS account, and one PostgreSQL for the whole session.

The cluster looks like an RDS instance: TLS with a private authority, a master user that is not a
superuser, and the role `rds_iam`. Members of that role log in with any password here; tests/local tests
that tokens are checked.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from local.parts.postgres import Postgres
    from tests.laptop import Laptop
    from tests.object_store import ObjectStore
    from tests.server.conftest import Migration

# What mlflow.set_tracking_uri, set_registry_uri and set_experiment remember; MLflow has no way to reset it.
_MLFLOW_GLOBALS = (
    ("mlflow.tracking._tracking_service.utils", "_tracking_uri"),
    ("mlflow.tracking._model_registry.utils", "_registry_uri"),
    ("mlflow.tracking.fluent", "_active_experiment_id"),
)
# Three times what all tests together keep in PostgreSQL.
_MEMORY_BYTES = 3 * 2**30
_KEPT_AWS_VARIABLES = {"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1"}


class _ByFolder(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each folder's tests to one process, so that only one of them starts what they share."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0].rpartition("/")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Run folders side by side."""
    return _ByFolder(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest folders, so that no process waits for the other at the end."""
    longest = ("deploy", "stacks")
    items.sort(key=lambda item: (*longest, item.path.parent.name).index(item.path.parent.name))


@pytest.fixture(autouse=True, scope="session")
def no_aws_account() -> Iterator[None]:
    """Hide every AWS profile, credential and metadata service of this machine from the tests."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_")):
            del os.environ[name]
    os.environ.update(
        _KEPT_AWS_VARIABLES,
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
    )
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def nothing_outlives_a_test() -> Iterator[None]:
    """Restore what `connect` and MLflow itself set in this process: the environment and three globals."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)
    for module, name in _MLFLOW_GLOBALS:
        if module in sys.modules:
            setattr(sys.modules[module], name, None)
    # set_experiment writes it as well; a fixture of the module's may have called that before this one began.
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@dataclass(frozen=True)
class RdsLike:
    """A PostgreSQL that looks like an RDS instance from outside."""

    postgres: Postgres
    host: str
    port: int
    ca_file: Path
    master: str
    master_password: str

    def administer(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the superuser (on RDS, Amazon's) and return its rows."""
        with self.postgres.cursor(database) as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def new_database(self, *, template: str = "template1") -> str:
        """Create a database that the master user owns, empty or a copy of `template`; return its name."""
        name = f"test_{secrets.token_hex(4)}"
        self.administer(f"CREATE DATABASE {name} OWNER {self.master} TEMPLATE {template}")
        return name


def _memory() -> Path | None:
    """A directory in memory, where databases are copied many times faster, if there is one with room."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > _MEMORY_BYTES else None


@contextmanager
def rds_like() -> Iterator[RdsLike]:
    """A PostgreSQL of this kind, running."""
    from local.parts.certificates import CertificateAuthority
    from local.parts.ports import free_port
    from local.parts.postgres import Postgres, running
    from local.parts.rds import make_rds_like

    # Not pytest's own directory: PostgreSQL runs as another user when we are root.
    directory = Path(tempfile.mkdtemp(prefix="mlflow-aws-tests-", dir=_memory()))
    directory.chmod(0o711)
    master, password = "mlflow_master", secrets.token_urlsafe(24)
    authority = CertificateAuthority.create(directory / "ca", name="Test RDS CA")
    postgres = Postgres(
        directory=directory / "postgres",
        port=free_port(),
        hba=(
            f"hostssl all {master} 127.0.0.1/32 scram-sha-256",
            "hostssl all +rds_iam 127.0.0.1/32 trust",
        ),
        tls=authority.issue("localhost", "127.0.0.1", name="postgres"),
        settings={"fsync": "off", "max_connections": "300"},
    )
    try:
        with running(postgres):
            cluster = RdsLike(postgres, "localhost", postgres.port, authority.bundle, master, password)
            make_rds_like(postgres, administrator=master, password=password)
            yield cluster
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def rds() -> Iterator[RdsLike]:
    """The session's PostgreSQL; tests ask it for databases of their own."""
    with rds_like() as made:
        yield made


@pytest.fixture(scope="session")
def migration(rds: RdsLike) -> Migration:
    """The session's only migrated database that tests copy: see `deployment(..., copy_of=...)`."""
    from tests.server.conftest import Migration, deployment

    with deployment(rds) as made:
        finished = made.migrate()
        assert finished.returncode == 0, finished.stderr
        return Migration(made.database, made.server_user, made.migrator)


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """The session's S3: every server of `deployment` has its address; it answers once a test asks for it."""
    from tests.object_store import STORE

    STORE.start()
    yield STORE
    STORE.stop()


@pytest.fixture(scope="session")
def laptop() -> Iterator[Laptop]:
    """The session's platform, for slow tests that leave it unchanged."""
    from tests.laptop import running_laptop

    with running_laptop() as laptop:
        yield laptop
