"""Sees to it that every version is sealed that has to be, once, whichever server began it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import asyncpg
from botocore.exceptions import BotoCoreError, ClientError

from mlflow_aws_server.database.connect import OpenConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.errors import RefusedError
from mlflow_aws_server.s3 import s3_client
from mlflow_aws_server.sealing import versions
from mlflow_aws_server.sealing.copying import Copier
from mlflow_aws_server.sealing.errors import (
    DelayedError,
    NotSealedError,
    SealingBegunError,
    UnsealableError,
)
from mlflow_aws_server.sealing.listener import NewVersions
from mlflow_aws_server.sealing.locks import Held, SealLocks
from mlflow_aws_server.sealing.manifest import Seal
from mlflow_aws_server.sealing.objects import Objects
from mlflow_aws_server.sealing.places import Root
from mlflow_aws_server.sealing.versions import FAILED, PENDING, VersionRow
from mlflow_aws_server.settings import SealSettings

_log = logging.getLogger("mlflow_aws_server.sealing")

# Clients look at a version that is not READY every 3 s: what takes less is done within their call.
_CREATED_SECONDS = 2.0
_ENSURE_SECONDS = 5.0
_SWEEP_SECONDS = 15.0
_PROGRESS_SECONDS = 3.0
_THREADS = 32
# Half of the threads are left to versions that somebody waits for.
_SWEPT_AT_ONCE = 2
# Waits before another attempt.
_FIRST_RETRY_SECONDS = 5.0
_LONGEST_RETRY_SECONDS = 300.0
# What may pass by itself. A policy that refuses is among it: a new one takes a while to be known everywhere.
_MAY_PASS = (
    DelayedError, ClientError, BotoCoreError,
    asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError,
)  # fmt: skip


class Seals(Protocol):
    """What the rest of the server asks of sealing."""

    async def created(self, name: str, version: str) -> bool:
        """Begin with a version that was just created; True if its row has changed by now."""

    async def ensure(self, name: str, version: str) -> Seal | None:
        """The version's seal, made now if it has none."""


@dataclass(slots=True)
class _Retry:
    attempts: int = 0
    at: float = 0.0


class Sealing:
    """Seals versions when they are created or promoted, and in the background what nobody waits for.

    The background takes up what a server left that ended, what failed for the moment, and what a stage or an
    alias names without a seal: versions from before there was sealing.
    """

    def __init__(
        self,
        open_connection: OpenConnection,
        questions: ConnectionPool,
        settings: SealSettings,
        *,
        client: Callable[[], Any] | None = None,
        sweep_seconds: float = _SWEEP_SECONDS,
    ) -> None:
        """`open_connection` opens a connection for locks, of which one is open at most.

        `questions` is for short statements; `client` makes the client of S3.
        """
        self._questions = questions
        self._settings = settings
        self._locks = SealLocks(open_connection)
        self._client = client or (lambda: _s3(settings.region))
        self._sweep_seconds = sweep_seconds
        self._new_versions = NewVersions(pending=settings.at_registration)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sealing")
        self._copier: Copier | None = None
        self._running: dict[tuple[str, int], asyncio.Task[RefusedError | None]] = {}
        self._retries: dict[tuple[str, int], _Retry] = {}
        self._sweeper: asyncio.Task[None] | None = None
        # Since when `backlog` has seen each.
        self._waiting: dict[tuple[str, int], float] = {}

    async def startup(self) -> None:
        """Watch for new versions, and begin with what is to be sealed already."""
        self._new_versions.watch()
        self._sweeper = asyncio.create_task(self._sweep_for_ever())

    async def shutdown(self) -> None:
        """End; what is being copied is finished by another server, or by the next."""
        self._new_versions.ignore()
        tasks = [task for task in (self._sweeper, *self._running.values()) if task is not None]
        # No copy may be under way when the lock is given up.
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def created(self, name: str, version: str) -> bool:
        """Begin to seal a version that was just created, and wait for a moment.

        True if it has ended by now, so that the version's row is another.
        """
        found = await self._ask(name, int(version))
        if found is None or not found.to_seal(wanted=False):
            return False
        task = self._begin(name, int(version))
        await asyncio.wait({task}, timeout=_CREATED_SECONDS)
        return task.done()

    async def ensure(self, name: str, version: str) -> Seal | None:
        """The version's seal, which is made now if there is none; None for a prompt, or no such version.

        Raises:
            SealingBegunError: it takes longer than a call should.
            NotSealedError: the version cannot be sealed.
        """
        if not (version.isascii() and version.isdigit()):
            return None
        number = int(version)
        found = await self._ask(name, number)
        if found is None or found.prompt or found.seal is not None:
            return None if found is None else found.seal
        task = self._begin(name, number, wanted=True)
        await asyncio.wait({task}, timeout=_ENSURE_SECONDS)
        found = await self._ask(name, number)
        if found is None or found.seal is not None:
            return None if found is None else found.seal
        if task.done() and (refusal := task.result()) is not None:
            raise refusal
        raise SealingBegunError(
            f"Version {version} of the model {name!r} is being sealed ({found.message or 'it has begun'}). "
            "Nothing was changed; try again in a moment."
        )

    async def backlog(self) -> dict[str, int]:
        """How many versions are to be sealed, for how long, and how many cannot be: as metrics name it."""
        due = await self._questions.run(versions.to_seal)
        failed = await self._questions.run(versions.failed)
        now = time.monotonic()
        self._waiting = {key: self._waiting.get(key, now) for key in due}
        oldest = now - min(self._waiting.values(), default=now)
        return {"SealingBacklog": len(due), "SealingOldest": round(oldest), "SealingFailed": failed}

    async def _ask(self, name: str, version: int) -> VersionRow | None:
        return await self._questions.run(lambda connection: versions.read(connection, name, version))

    def _begin(self, name: str, version: int, *, wanted: bool = False) -> asyncio.Task[RefusedError | None]:
        key = name, version
        if key not in self._running:
            task = asyncio.create_task(self._seal(name, version, wanted=wanted))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key))
        return self._running[key]

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                for key in await self._questions.run(versions.to_seal):
                    # Somebody may be waiting for others, which begin at once.
                    while len(self._running) >= _SWEPT_AT_ONCE:
                        await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
                    if self._retries.get(key, _Retry()).at <= time.monotonic():
                        self._begin(*key)
            except RefusedError as error:
                _log.warning("the versions that are to be sealed cannot be read: %s", error)
            except Exception:
                _log.exception("looking for versions that are to be sealed failed unexpectedly")
            await asyncio.sleep(self._sweep_seconds * random.uniform(0.7, 1.3))  # noqa: S311 - spreads servers

    async def _seal(self, name: str, version: int, *, wanted: bool) -> RefusedError | None:
        """Seal a version unless that is not needed, or another server is at it; why it cannot be, if so."""
        try:
            async with self._locks.hold(name, version) as held:
                if held is None:
                    return None
                found = await held.run(lambda connection: versions.read(connection, name, version))
                if found is not None and found.to_seal(wanted=wanted):
                    return await self._seal_held(held, found)
        except _MAY_PASS as error:
            # What was copied is found again.
            _log.warning("version %d of the model %r is sealed later: %r", version, name, error)
            return None
        self._retries.pop((name, version), None)
        return None

    async def _seal_held(self, held: Held, version: VersionRow) -> RefusedError | None:
        key = version.name, version.version
        retry = self._retries.setdefault(key, _Retry())
        began = time.monotonic()
        if not version.keeps_ready and version.status != PENDING:
            await _note(held, version, PENDING, versions.BEGUN)
        try:
            seal = await self._copied(held, version)
            if not await held.run(lambda connection: versions.complete(connection, version, seal)):
                # Deleted meanwhile.
                return None
        except UnsealableError as error:
            reason = f"{str(error)[0].upper()}{str(error)[1:]}."
            retry.at = time.monotonic() + _LONGEST_RETRY_SECONDS
            if not version.keeps_ready:
                await _note(held, version, FAILED, f"Not sealed: {reason}")
            _write(logging.ERROR, version, "failed", reason=reason)
            return NotSealedError(
                f"Version {version.version} of the model {version.name!r} cannot be sealed, and what is not "
                f"sealed gets no stage and no alias. {reason} Nothing was changed."
            )
        except _MAY_PASS as error:
            retry.attempts += 1
            wait = min(_FIRST_RETRY_SECONDS * 2 ** (retry.attempts - 1), _LONGEST_RETRY_SECONDS)
            retry.at = time.monotonic() + wait
            reason = f"{type(error).__name__}: {error}"
            if not version.keeps_ready:
                message = f"Attempt {retry.attempts} to seal it failed, and the server tries again: {reason}"
                await _note(held, version, PENDING, message)
            _write(logging.ERROR, version, "delayed", attempt=retry.attempts, reason=reason)
            return None
        del self._retries[key]
        seconds = round(time.monotonic() - began, 3)
        _write(
            logging.INFO, version, "sealed", files=seal.files, bytes=seal.bytes, seconds=seconds,
            manifest=seal.manifest, sha256=seal.sha256,
        )  # fmt: skip
        return None

    async def _copied(self, held: Held, version: VersionRow) -> Seal:
        """Copy, and say from time to time how far it is."""
        copier = await self._make_copier()
        locations = await held.run(lambda connection: versions.places_of_files(connection, version))
        counted = (0, 0)

        def progress(copied: int, files: int) -> None:
            nonlocal counted
            counted = copied, files
            if held.lost:
                raise DelayedError("the connection to the database was lost, and with it the version's lock")

        copying = asyncio.create_task(copier.seal(version, locations, progress))
        while not copying.done():
            await asyncio.wait({copying}, timeout=_PROGRESS_SECONDS)
            if not (copying.done() or version.keeps_ready or held.lost):
                await _note(held, version, PENDING, "{} of {} files are copied.".format(*counted))
        return copying.result()

    async def _make_copier(self) -> Copier:
        if self._copier is None:
            root = Root.read(self._settings.root)
            client = await asyncio.to_thread(self._client)
            objects = Objects(client, root.prefix.bucket, lock=self._settings.lock)
            self._copier = Copier(objects, root, self._threads)
        return self._copier


async def _note(held: Held, version: VersionRow, status: str, message: str) -> None:
    await held.run(lambda connection: versions.note(connection, version, status=status, message=message))


def _write(level: int, version: VersionRow, outcome: str, **more: object) -> None:
    fields = {
        "seal": outcome,
        "model": version.name,
        "version": version.version,
        "live": version.live,
        **more,
    }
    _log.log(level, "%s", outcome, extra={"fields": fields})


def _s3(region: str) -> Any:
    # S3 sends something all the time while it copies a large object.
    return s3_client(region, read_timeout=60, max_pool_connections=_THREADS)
