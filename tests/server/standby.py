"""A writer and a reader: two PostgreSQL servers in streaming replication, with MLflow's schema."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.parts.certificates import CertificateAuthority
from local.parts.ports import free_port
from local.parts.postgres import SUPERUSER, Postgres, PostgresError
from local.parts.standby import REPLICATION_RULE, standby

DATABASE = "mlflow"
_SETTINGS = {"fsync": "off"}


@dataclass(frozen=True)
class Pair:
    """The writer on 127.0.0.1 and its reader on 127.0.0.2, on the same port, as a cluster's endpoints are."""

    writer: Postgres
    reader: Postgres
    ca_file: Path

    def write(self, statement: str) -> None:
        """Run a statement on the writer."""
        with self.writer.cursor(DATABASE) as cursor:
            cursor.execute(statement)

    def catch_up(self) -> None:
        """Return once the reader has replayed what the writer has written so far."""
        with self.writer.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_lsn()::text")
            (position,) = cursor.fetchone()
        deadline = time.monotonic() + 20
        with self.reader.cursor() as cursor:
            while time.monotonic() < deadline:
                cursor.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (position,))
                if cursor.fetchone()[0]:
                    return
                time.sleep(0.01)
        raise PostgresError(f"the reader did not catch up; see {self.reader.log}")

    @contextmanager
    def lagging(self) -> Iterator[None]:
        """Keep the reader at what it has replayed so far, as a reader is that cannot keep up."""
        self.catch_up()
        self._reader("SELECT pg_wal_replay_pause()")
        try:
            yield
        finally:
            self._reader("SELECT pg_wal_replay_resume()")

    def _reader(self, statement: str) -> None:
        with self.reader.cursor() as cursor:
            cursor.execute(statement)


@contextmanager
def replicated() -> Iterator[Pair]:
    """Both servers, running, and MLflow's schema on them."""
    directory = Path(tempfile.mkdtemp(prefix="mlflow-aws-standby-"))
    directory.chmod(0o711)
    authority = CertificateAuthority.create(directory / "ca", name="Test cluster CA")
    tls = authority.issue("127.0.0.1", "127.0.0.2", name="cluster")
    port = free_port()
    hba = ("hostssl all +rds_iam 127.0.0.0/8 trust",)
    writer = Postgres(directory / "writer", port, hba, (REPLICATION_RULE,), tls, settings=_SETTINGS)
    writer.create()
    reader = standby(writer, directory / "reader", host="127.0.0.2", tls=tls)
    try:
        writer.start()
        reader.start()
        with writer.cursor() as cursor:
            cursor.execute("CREATE ROLE rds_iam NOLOGIN")
            cursor.execute(f"CREATE DATABASE {DATABASE}")
        _migrate(writer)
        pair = Pair(writer, reader, authority.bundle)
        pair.catch_up()
        yield pair
    finally:
        reader.stop()
        writer.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _migrate(writer: Postgres) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    where = f"host={writer.socket_directory}&port={writer.port}"
    SqlAlchemyStore(
        f"postgresql+psycopg2://{SUPERUSER}@/{DATABASE}?{where}", "s3://bucket/root"
    ).engine.dispose()
