"""The PostgreSQL behind each DB instance: the platform's own, and one for each instance that was restored."""

from __future__ import annotations

import itertools
import shutil
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from local.emulator.front_door import ThreadedFrontDoor
from local.parts.backups import BackupError, back_up, restore, restore_to
from local.parts.postgres import Postgres
from local.parts.processes import Ledger
from local.parts.rds import make_rds_like

OpenDoor = Callable[[int, Path], ThreadedFrontDoor]
"""(port, PostgreSQL's Unix socket) -> a door there; port 0 is any free one."""


@dataclass
class _Database:
    postgres: Postgres
    # Of an instance that was restored; the platform's own has the platform's.
    door: ThreadedFrontDoor | None = None
    # The backup that a point in time begins with, made when the instance was.
    backup: Path | None = None
    restorable_since: datetime | None = None
    working: list[threading.Thread] = field(default_factory=list)


class Databases:
    """Real databases by their instance's resource id, and real copies of them by their snapshot's ARN."""

    def __init__(self, platforms: Postgres, *, open_door: OpenDoor, ledger: Ledger) -> None:
        self._platforms = platforms
        self._open_door = open_door
        self._ledger = ledger
        self._databases: dict[str, _Database] = {}
        self._copies: dict[str, Path] = {}
        self._names = itertools.count(1)
        # Copies and restores, one after the other.
        self._lock = threading.Lock()
        # The door of the platform's own.
        self.door: ThreadedFrontDoor | None = None

    @property
    def socket(self) -> Path:
        """Where the platform's own PostgreSQL listens."""
        return self._platforms.socket

    def __contains__(self, resource_id: str) -> bool:
        return resource_id in self._databases

    def server_of(self, resource_id: str) -> Postgres:
        """The PostgreSQL behind an instance."""
        return self._databases[resource_id].postgres

    def set_open(self, resource_id: str, *, is_open: bool) -> None:
        """Stop or start an instance for its clients; PostgreSQL behind it keeps what it holds."""
        door = self._databases[resource_id].door or self.door
        assert door is not None  # noqa: S101 - opened before an API call
        door.set_open(is_open=is_open)

    def create(self, resource_id: str, *, administrator: str, password: str, database: str) -> None:
        """The platform's PostgreSQL becomes that of this new instance; its backups begin.

        Another empty one, while that exists, has none: it is a record.
        """
        with self._lock:
            if any(each.door is None for each in self._databases.values()):
                return
            make_rds_like(self._platforms, administrator=administrator, password=password, database=database)
            self._databases[resource_id] = _Database(self._platforms)
            self._back_up(resource_id)

    def later(self, resource_id: str, work: Callable[[], None], tell: Callable[[bool], None]) -> None:
        """Do it in the background, and tell whether it succeeded."""

        def run() -> None:
            try:
                work()
            except Exception:
                traceback.print_exc()
                tell(False)
            else:
                tell(True)

        thread = threading.Thread(target=run, daemon=True)
        self._databases[resource_id].working.append(thread)
        thread.start()

    def restorable_since(self, resource_id: str) -> datetime | None:
        """The earliest moment that this instance can be restored to."""
        return self._databases[resource_id].restorable_since

    def copy(self, resource_id: str, arn: str) -> None:
        """Copy the instance's database as it is now."""
        with self._lock:
            target = self._new_directory()
            back_up(self._databases[resource_id].postgres, target)
            self._copies[arn] = target

    def copy_copy(self, source: str, arn: str) -> None:
        """Copy what a copy holds."""
        with self._lock:
            target = self._new_directory()
            shutil.copytree(self._copies[source], target, symlinks=True)
            self._copies[arn] = target

    def forget_copy(self, arn: str) -> None:
        """Remove a copy."""
        with self._lock:
            shutil.rmtree(self._copies.pop(arn), ignore_errors=True)

    def open(self, resource_id: str) -> int:
        """Open a door for an instance that is about to be restored; returns its port."""
        directory = self._new_directory()
        directory.mkdir(mode=0o700)
        server = Postgres(directory, self._platforms.port)
        door = self._open_door(0, server.socket)
        self._databases[resource_id] = _Database(server, door)
        return door.port

    def restore(self, resource_id: str, arn: str) -> None:
        """Start the opened instance's PostgreSQL with what a copy holds.

        Raises:
            KeyError: there is no such copy.
            PostgresError: it did not start.
        """
        with self._lock:
            self._started(resource_id, restore(self._copies[arn], self._platforms, self._home(resource_id)))

    def restore_to(self, resource_id: str, source: str, moment: datetime | None) -> None:
        """Start the opened instance's PostgreSQL with what another one held at a moment; None: now.

        Raises:
            BackupError, PostgresError: it did not.
        """
        with self._lock:
            origin = self._databases[source]
            if origin.backup is None:
                raise BackupError(f"{source} has no backup")
            server = restore_to(moment, origin.backup, origin.postgres, self._home(resource_id))
            self._started(resource_id, server)

    def set_password(self, resource_id: str, user: str, password: str) -> None:
        """Give a user of a running instance another password."""
        from psycopg2 import sql

        with self._databases[resource_id].postgres.cursor() as cursor:
            cursor.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(user), sql.Literal(password))
            )

    def end(self, resource_id: str) -> None:
        """The instance is deleted: finish its last snapshot, then end what was started for it."""
        database = self._databases.get(resource_id)
        if database is None:
            return
        for thread in database.working:
            thread.join()
        with self._lock:
            del self._databases[resource_id]
            if database.door is not None:
                self._stop(database)
                shutil.rmtree(database.postgres.directory, ignore_errors=True)
            if database.backup is not None:
                shutil.rmtree(database.backup, ignore_errors=True)

    def close(self) -> None:
        """Stop every PostgreSQL that was started here."""
        for database in self._databases.values():
            self._stop(database)

    def _started(self, resource_id: str, server: Postgres) -> None:
        assert server.pid is not None  # noqa: S101 - it has just started
        self._ledger.add(server.pid, f"PostgreSQL of {resource_id}", signal_number=2, patience=20)
        self._databases[resource_id].postgres = server
        self._back_up(resource_id)

    def _back_up(self, resource_id: str) -> None:
        backup = self._new_directory()
        back_up(self._databases[resource_id].postgres, backup)
        self._databases[resource_id].backup = backup
        self._databases[resource_id].restorable_since = datetime.now(UTC)

    def _stop(self, database: _Database) -> None:
        if database.door is None:
            return
        database.door.close()
        pid = database.postgres.pid
        database.postgres.stop()
        if pid is not None:
            self._ledger.remove(pid)

    def _home(self, resource_id: str) -> Path:
        return self._databases[resource_id].postgres.directory

    def _new_directory(self) -> Path:
        # Below the platform's own, which goes with the platform, and short: it will hold a Unix socket.
        return self._platforms.directory / str(next(self._names))
