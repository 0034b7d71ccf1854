"""One PostgreSQL with TLS for all systems, and a database in it for each, with the same rows."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import corpus
from bench.corpus import Corpus
from local.parts.certificates import CertificateAuthority
from local.parts.ports import free_port
from local.parts.postgres import SUPERUSER, Postgres, running, state_directory

# The role that the task has on AWS: it may read and write rows and nothing else.
SERVER_ROLE = "mlflow_server"
# Stock MLflow makes no such distinction and owns its database.
OWNER_ROLE = SUPERUSER

# RDS's defaults for a db.t4g.micro (1 GiB). Durability is PostgreSQL's default: fsync and synchronous_commit
# are on.
SETTINGS = {
    "shared_buffers": "256MB",
    "effective_cache_size": "512MB",
    "max_wal_size": "2GB",
    "max_connections": "200",
}

_TEMPLATE = "bench_template"


@dataclass(frozen=True)
class Sizes:
    """How much is in a database before the load starts, in runs."""

    written: int = 2_000
    small: int = 5_000
    large: int = 100_000
    with_history: int = 200

    def corpus(self) -> Corpus:
        """Names of what is in the database."""
        return corpus.seeded(written=self.written, small=self.small, with_history=self.with_history)


@dataclass(frozen=True)
class PostgresCluster:
    """A running PostgreSQL and the authority its certificate can be verified with."""

    postgres: Postgres
    authority: CertificateAuthority

    @property
    def ca_file(self) -> str:
        """The PEM bundle that clients verify the server with."""
        return str(self.authority.bundle)

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self.postgres.pid is not None
        return self.postgres.pid

    def uri(self, database: str, user: str) -> str:
        """SQLAlchemy URI with full verification of the server's certificate."""
        return (
            f"postgresql+psycopg2://{user}@127.0.0.1:{self.postgres.port}/{database}"
            f"?sslmode=verify-full&sslrootcert={self.ca_file}"
        )

    def execute(self, database: str, statements: Sequence[str]) -> None:
        """Run statements as the superuser, each in its own transaction."""
        with self.postgres.cursor(database) as cursor:
            for statement in statements:
                cursor.execute(statement)

    def query(self, database: str, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, run as the superuser."""
        with self.postgres.cursor(database) as cursor:
            cursor.execute(statement, arguments)
            return list(cursor.fetchall())

    def settings(self) -> dict[str, str]:
        """The server's version and the settings that decide durability and memory."""
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", *SETTINGS)
        return {name: self.query("postgres", f"SHOW {name}")[0][0] for name in names}

    def prepare(self, databases: Sequence[str], sizes: Sizes) -> None:
        """Create `databases` with the same rows: MLflow's schema, then the seed."""
        self.execute("postgres", [f"CREATE DATABASE {_TEMPLATE}", f"CREATE ROLE {SERVER_ROLE} LOGIN"])
        upgrade_schema(self.uri(_TEMPLATE, OWNER_ROLE))
        self.execute(
            _TEMPLATE,
            [
                f"GRANT USAGE ON SCHEMA public TO {SERVER_ROLE}",
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {SERVER_ROLE}",
                f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO {SERVER_ROLE}",
                *corpus.seed_statements(
                    written=sizes.written,
                    small=sizes.small,
                    large=sizes.large,
                    with_history=sizes.with_history,
                ),
                "VACUUM (ANALYZE)",
                "CHECKPOINT",
            ],
        )
        for name in databases:
            self.execute(
                "postgres", [f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY file_copy", "CHECKPOINT"]
            )


@contextlib.contextmanager
def cluster(project_local: Path) -> Iterator[PostgresCluster]:
    """A cluster that is stopped and removed at the end."""
    directory = state_directory(project_local, "bench-postgres")
    authority = CertificateAuthority.create(project_local / "bench-ca", name="bench")
    postgres = Postgres(
        directory=directory,
        port=free_port(),
        # Local and short-lived: clients verify the certificate, the server checks no password. Ours makes its
        # tokens all the same.
        hba=("hostssl all all 127.0.0.1/32 trust",),
        tls=authority.issue("localhost", "127.0.0.1", name="database"),
        settings=SETTINGS,
    )
    try:
        with running(postgres):
            yield PostgresCluster(postgres, authority)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(authority.directory, ignore_errors=True)


def upgrade_schema(uri: str) -> None:
    """Upgrade a database to the installed MLflow's schema.

    Raises:
        RuntimeError: `mlflow db upgrade` failed; the message holds the end of its output.
    """
    finished = subprocess.run(
        [sys.executable, "-m", "mlflow", "db", "upgrade", uri], capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        raise RuntimeError(f"`mlflow db upgrade` failed:\n{finished.stderr[-2000:]}")
