"""The archive of a source: gzip'd PostgreSQL COPY text, and a manifest that names every part.

One format for every source, which the server's task `import` reads. A part is there once it is in the
manifest, so writing can be interrupted and go on.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from operations.errors import FailedError

FORMAT = 1
# Of gzip; the text is compressed once and read once.
_FAST = 1
_SEQUENCE = re.compile(r"\\(.)")
_MEANT = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})

# What other processes or keys of the source's are needed for, secrets above all: it is counted, never read.
NOT_READ = frozenset(
    (
        "secrets", "endpoints", "endpoint_bindings", "endpoint_model_mappings", "endpoint_tags",
        "model_definitions", "budget_policies", "guardrails", "guardrail_configs",
        "webhooks", "webhook_events", "jobs", "job_locks", "scheduler_leases", "workspaces",
        # Computed from traces.
        "sql_trace_metric_daily_rollups", "sql_span_cost_daily_rollups", "sql_assessment_daily_rollups",
        "sql_trace_rollup_rebuild_queue",
    )
)  # fmt: skip


class Archive:
    """An archive in a directory, as it grows."""

    def __init__(self, directory: Path, *, source: str, kind: str, revision: str) -> None:
        """Begin it, or go on with what an interrupted reader of the same source has left."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "manifest.json"
        begun = {"format": FORMAT, "source": source, "kind": kind, "revision": revision}
        self.manifest: dict[str, Any] = {**begun, "complete": False, "left_out": {}, "roots": {}, "parts": []}
        if self._path.exists():
            found = json.loads(self._path.read_text())
            if not found["complete"] and {name: found.get(name) for name in begun} == begun:
                self.manifest = found

    def has(self, file: str) -> bool:
        """Whether this part is there."""
        return any(part["file"] == f"{file}.copy.gz" for part in self.manifest["parts"])

    @contextmanager
    def part(self, file: str, table: str, columns: Sequence[str]) -> Iterator[Part]:
        """Write the rows of one table in it; it is there when the block ends well."""
        path = self.directory / f"{file}.copy.gz"
        with path.open("wb") as raw:
            digested = _Digested(raw)
            with gzip.GzipFile("", "wb", _FAST, cast(BinaryIO, digested), mtime=0) as text:
                part = Part(text.write, table, columns)
                yield part
        if not part.rows:
            path.unlink()
            return
        self.manifest["parts"].append(
            {
                "file": path.name,
                "table": table,
                "columns": list(columns),
                "rows": part.rows,
                "bytes": digested.size,
                "sha256": digested.sha256.hexdigest(),
            }
        )
        self._save()

    def leave_out(self, table: str, rows: int) -> None:
        """Note rows that are not read."""
        self.manifest["left_out"][table] = rows

    def finish(self, *, suffix: str, roots: dict[str, str]) -> None:
        """Every part is there: say what names that are taken get, and where artifacts are now."""
        self.manifest |= {"complete": True, "suffix": suffix, "roots": roots}
        self._save()

    @property
    def sha256(self) -> str:
        """The digest of the manifest, which has those of all parts."""
        return hashlib.sha256(self._path.read_bytes()).hexdigest()

    @property
    def files(self) -> list[Path]:
        """Everything that it is made of; the manifest comes last."""
        return [*(self.directory / part["file"] for part in self.manifest["parts"]), self._path]

    def rows(self) -> dict[str, int]:
        """How many rows there are of each table."""
        counts: dict[str, int] = {}
        for part in self.manifest["parts"]:
            counts[part["table"]] = counts.get(part["table"], 0) + part["rows"]
        return counts

    def values(self, table: str, *columns: str) -> Iterator[tuple[str | None, ...]]:
        """The values of these columns in every row."""
        for part in self.manifest["parts"]:
            if part["table"] == table and set(columns) <= set(part["columns"]):
                places = [part["columns"].index(column) for column in columns]
                with gzip.open(self.directory / part["file"], "rt", encoding="utf-8", newline="\n") as lines:
                    for line in lines:
                        values = line.rstrip("\n").split("\t")
                        yield tuple(_plain(values[place]) for place in places)

    def _save(self) -> None:
        begun = self._path.with_suffix(".begun")
        begun.write_text(json.dumps(self.manifest, indent=1))
        begun.replace(self._path)


class Part:
    """The rows of one table: COPY text as it is, or values that become it."""

    def __init__(self, write: Callable[[bytes], object], table: str, columns: Sequence[str]) -> None:
        self._write, self._table, self._columns = write, table, columns
        self.rows = 0

    def write(self, lines: bytes) -> None:
        """Append COPY text: whole lines or pieces of them."""
        self.rows += lines.count(b"\n")
        self._write(lines)

    def add(self, rows: Iterable[Sequence[object]]) -> None:
        """Append rows.

        Raises:
            FailedError: PostgreSQL cannot hold a value.
        """
        lines = "".join(["\t".join(map(text, row)) + "\n" for row in rows])
        if "\0" in lines:
            self._refuse(lines)
        self.write(lines.encode())

    def _refuse(self, lines: str) -> None:
        row = next(line for line in lines.split("\n") if "\0" in line)
        values = dict(zip(self._columns, row.split("\t"), strict=False))
        (column,) = (name for name, value in values.items() if "\0" in value)
        where = ", ".join(f"{name}={value[:60]!r}" for name, value in values.items() if "\0" not in value)
        raise FailedError(
            f"{self._table}.{column} holds a NUL character, which PostgreSQL cannot store, where "
            f"{where[:400]}: remove it in the source, and import again"
        )


def text(value: object) -> str:
    """A value as COPY reads it."""
    if value is None:
        return "\\N"
    if isinstance(value, str):
        # Most hold none of them.
        return value.translate(_ESCAPED) if "\\" in value or not value.isprintable() else value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"\\\\x{bytes(value).hex()}"
    return repr(value) if isinstance(value, float) else str(value)


def _plain(value: str) -> str | None:
    return None if value == "\\N" else _SEQUENCE.sub(lambda found: _MEANT.get(found[1], found[1]), value)


class _Digested:
    """A file that is written, with the digest and size of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
