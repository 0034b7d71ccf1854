"""The databases that are kept in `made/`, each with what its own client saw in it."""

from __future__ import annotations

import gzip
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MADE = Path(__file__).parent / "made"
ARTIFACT_BUCKET = "legacy-mlflow"


@dataclass(frozen=True)
class Source:
    """One MLflow of one version on one kind of store."""

    version: str
    backend: str

    @property
    def name(self) -> str:
        return f"{self.version}-{self.backend}"

    @property
    def on_s3(self) -> bool:
        """Whether clients wrote artifacts to S3 themselves; else through the server (`mlflow-artifacts:`)."""
        return self.backend != "mlruns" and self.version != "2.11.3"

    @property
    def mlruns(self) -> Path:
        """Where a folder of runs was made: its files name the place."""
        return Path(f"/tmp/mlflow-{self.version}/mlruns")

    @property
    def dump(self) -> Path:
        """SQL as PostgreSQL's or MySQL's own tool writes it, or SQLite's file."""
        kind = "db" if self.backend == "sqlite" else "sql"
        return MADE / f"{self.name}.{kind}.gz"

    @property
    def artifacts(self) -> Path:
        """The files below the artifact root; of a folder of runs, the folder."""
        return MADE / f"{self.name}.artifacts.tar.gz"

    @property
    def expected(self) -> Path:
        """Its revision, the rows of each table, and what `seen.py` saw through its own client."""
        return MADE / f"{self.name}.expected.json.gz"

    @property
    def files(self) -> list[Path]:
        return [each for each in (self.dump, self.artifacts, self.expected) if each.exists()]

    def sql(self) -> str:
        """The dump's text."""
        return gzip.decompress(self.dump.read_bytes()).decode()

    def expectation(self) -> dict[str, Any]:
        """What `expected` holds."""
        found: dict[str, Any] = json.loads(gzip.decompress(self.expected.read_bytes()))
        return found

    def unpack_artifacts(self, target: Path) -> None:
        """Write the artifacts below a folder."""
        with tarfile.open(self.artifacts) as archive:
            archive.extractall(target, filter="data")


SOURCES = (
    *(Source(version, "postgresql") for version in ("2.11.3", "2.22.5", "3.1.4", "3.14.0")),
    Source("2.11.3", "mysql"),
    Source("2.11.3", "sqlite"),
    Source("2.11.3", "mlruns"),
    Source("3.14.0", "sqlite"),
)
BY_NAME = {source.name: source for source in SOURCES}
