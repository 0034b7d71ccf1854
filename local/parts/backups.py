"""Physical copies of a running PostgreSQL, and servers made of them: what the backups of RDS are.

By PostgreSQL's low-level API, since pg_basebackup is not among the embedded binaries
(https://www.postgresql.org/docs/18/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from local.parts.postgres import Postgres, give

# What a server needs to be copied: an archive beside its data, where a segment appears whole or not at all.
ARCHIVING: Mapping[str, str] = {
    "archive_mode": "on",
    "archive_command": "mkdir -p ../archive && cp %p ../archive/.%f && mv ../archive/.%f ../archive/%f",
}
_FIRST_SEGMENT = re.compile(r"^START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)$", re.MULTILINE)
_RESTORE_SECONDS = 600
_ARCHIVED_SECONDS = 30
_PAUSE_SECONDS = 0.05


class BackupError(RuntimeError):
    """There is no copy, or no log, from which this could be restored."""


def back_up(postgres: Postgres, target: Path) -> None:
    """Copy the running server into `target`, with the log that makes the copy consistent.

    It needs `ARCHIVING`. Clients go on reading and writing.
    """
    data = postgres.directory / "data"
    with postgres.cursor() as cursor:
        cursor.execute("SELECT pg_backup_start('copy', fast => true)")
        shutil.copytree(data, target, ignore=_left_out(data), copy_function=_copy_unless_gone, symlinks=True)
        cursor.execute("SELECT labelfile, pg_walfile_name(lsn) FROM pg_backup_stop()")
        label, last = cursor.fetchone()
    (target / "backup_label").write_text(label)
    found = _FIRST_SEGMENT.search(label)
    assert found is not None  # noqa: S101 - PostgreSQL wrote it
    for segment in _archive(postgres).iterdir():
        if found[1] <= segment.name <= last:
            shutil.copy2(segment, target / "pg_wal")


def restore(backup: Path, like: Postgres, directory: Path) -> Postgres:
    """Start a server in `directory` that holds what the copy holds."""
    server = _laid_out(backup, like, directory)
    server.start(seconds=_RESTORE_SECONDS)
    return server


def restore_to(moment: datetime | None, backup: Path, source: Postgres, directory: Path) -> Postgres:
    """Start a server that holds what the running `source` held at a moment after the copy; None: now.

    Raises:
        BackupError: the source's log did not reach its archive.
    """
    # PostgreSQL stops at a transaction that is later than the moment: there must be one.
    moment = moment or datetime.now(UTC)
    _archive_until_now(source)
    server = _laid_out(backup, source, directory)
    archive = os.path.relpath(_archive(source), server.directory / "data")
    recovery = {
        "restore_command": f"cp {archive}/%f %p",
        "recovery_target_time": moment.isoformat(),
        "recovery_target_action": "promote",
        # It accepts connections when it has recovered, and not before.
        "hot_standby": "off",
    }
    server.settings = {**server.settings, **recovery}
    (server.directory / "data" / "recovery.signal").touch()
    give(server.directory / "data" / "recovery.signal")
    server.start(seconds=_RESTORE_SECONDS)
    return server


def _archive_until_now(source: Postgres) -> None:
    with source.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()")
        cursor.execute("SELECT pg_walfile_name(pg_switch_wal())")
        (segment,) = cursor.fetchone()
    deadline = time.monotonic() + _ARCHIVED_SECONDS
    while not (_archive(source) / segment).exists():
        if time.monotonic() > deadline:
            raise BackupError(f"{segment} is not in {_archive(source)} after {_ARCHIVED_SECONDS} seconds")
        time.sleep(_PAUSE_SECONDS)


def _laid_out(backup: Path, like: Postgres, directory: Path) -> Postgres:
    server = replace(like, directory=directory, settings=dict(like.settings), _process=None)
    server.socket_directory.mkdir(mode=0o700, parents=True)
    directory.chmod(0o700)
    shutil.copytree(backup, directory / "data", symlinks=True)
    for each in (directory, *directory.rglob("*")):
        give(each)
    return server


def _archive(postgres: Postgres) -> Path:
    return postgres.directory / "archive"


def _left_out(data: Path) -> Callable[[str, list[str]], Collection[str]]:
    """What belongs to the running process, and its log, which comes from the archive."""
    wal = str(data / "pg_wal")

    def ignored(directory: str, names: list[str]) -> Collection[str]:
        if directory == str(data):
            return {"postmaster.pid", "postmaster.opts"}
        return names if directory == wal else ()

    return ignored


def _copy_unless_gone(source: str, target: str) -> None:
    # A table that is dropped meanwhile; the log says so.
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)
