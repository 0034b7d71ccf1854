"""Imports in this process: an archive in a folder instead of S3, and a deployment's database."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow_aws_server.imports import run as importing
from mlflow_aws_server.settings import ImportSettings

from operations.imports import databases
from operations.imports.archive import Archive
from tests.server.conftest import Deployment

NAME = "team-a"
OLD_ROOT = "s3://their-bucket/mlflow"


class Folder:
    """Stands in for S3's client: the objects are the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's
        return {"Body": io.BytesIO((self._folder / Path(Key).name).read_bytes())}


@dataclass
class Target:
    """A deployment that archives are imported into."""

    made: Deployment
    folder: Path

    def read(self, source: Path) -> Archive:
        """The archive of an SQLite database."""
        folder = self.folder / "archive"
        archive = databases.read(
            databases.parsed(f"sqlite:///{source}", {}),
            lambda revision: Archive(folder, source=NAME, kind="test", revision=revision),
            lambda _: None,
        )
        archive.finish(suffix=f"-{NAME}", roots={OLD_ROOT: self.root})
        return archive

    @property
    def root(self) -> str:
        return f"{self.made.environ['MLFLOW_AWS_ARTIFACT_ROOT']}/imported/{NAME}"

    def run(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Import the archive."""
        with pytest.MonkeyPatch.context() as patched:
            for name, value in self.made.environ.items():
                patched.setenv(name, value)
            patched.setattr(importing, "s3_client", lambda _: Folder(self.folder / "archive"))
            return importing.run(
                ImportSettings.from_environ(self.made.environ),
                NAME,
                sha256=hashlib.sha256((self.folder / "archive" / "manifest.json").read_bytes()).hexdigest(),
                dry_run=dry_run,
            )

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return self.made.rds.administer(query, database=self.made.database)

    def everything(self) -> list[tuple[Any, ...]]:
        """The schemas, and a digest of every row of MLflow's tables."""
        tables = [name for (name,) in self.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        digests = " UNION ALL ".join(
            f"SELECT '{table}', md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"
            for table in tables
        )
        return sorted([*self.ask("SELECT nspname::text, '' FROM pg_namespace"), *self.ask(digests)], key=str)
