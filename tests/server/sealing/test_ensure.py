"""What a promotion asks for: the seal of a version, made now if need be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from mlflow_aws_server.database.connect import connect_async
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.sealing import Seal, Sealing, sealing, versions
from mlflow_aws_server.sealing.errors import NotSealedError, SealingBegunError
from mlflow_aws_server.sealing.locks import SealLocks
from mlflow_aws_server.settings import SealSettings

from tests.conftest import RdsLike
from tests.object_store import ObjectStore
from tests.server.conftest import Migration
from tests.server.sealing.harness import FILES

PENDING, READY, FAILED = versions.PENDING, versions.READY, versions.FAILED


class Table:
    """MLflow's tables, with versions that a test writes there."""

    def __init__(self, rds: RdsLike, database: str, store: ObjectStore) -> None:
        self.rds = rds
        self.database = database
        self.store = store
        self.root = f"runs/{secrets.token_hex(4)}"

    async def connect(self) -> Any:
        socket = str(self.rds.postgres.socket_directory)
        return await connect_async(
            host=socket, port=self.rds.port, user="postgres", database=self.database, ssl=False
        )

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        return self.rds.administer(statement, database=self.database)

    def add(self, *, status: str = READY, stage: str = "None", files: dict[str, bytes] | None = None) -> str:
        """A version 1 of a new model; returns its name."""
        name = f"model-{secrets.token_hex(4)}"
        source = self.store.write_model(f"{self.root}/{name}", FILES if files is None else files)
        self.execute(f"INSERT INTO registered_models (name, workspace) VALUES ('{name}', 'default')")
        self.execute(
            "INSERT INTO model_versions (workspace, name, version, creation_time, current_stage, source,"
            f" storage_location, status) VALUES ('default', '{name}', 1, {time.time_ns() // 10**6},"
            f" '{stage}', '{source}', '{source}', '{status}')"
        )
        return name

    def row(self, name: str) -> tuple[Any, ...]:
        """Status, message and location."""
        (row,) = self.execute(
            f"SELECT status, status_message, storage_location FROM model_versions WHERE name = '{name}'"
        )
        return row

    def row_of(self, name: str, version: int) -> tuple[Any, ...]:
        """Status and user of a version."""
        (row,) = self.execute(
            f"SELECT status, user_id FROM model_versions WHERE name = '{name}' AND version = {version}"
        )
        return row

    @contextlib.asynccontextmanager
    async def sealing(
        self, *, at_registration: bool = True, client: Callable[[], Any] | None = None, started: bool = False
    ) -> AsyncIterator[Sealing]:
        """One server's sealing; without `started`, nothing runs in its background."""
        settings = SealSettings(
            root=f"s3://{self.store.bucket}/{self.root}",
            region="eu-central-1",
            at_registration=at_registration,
            lock=None,
        )
        questions = ConnectionPool(self.connect, connections=1, queue=100)
        made = Sealing(
            self.connect,
            questions,
            settings,
            client=client or (lambda: self.store.client),
            sweep_seconds=0.2,
        )
        if started:
            await made.startup()
        try:
            yield made
        finally:
            if not started:
                made._new_versions.watch()
            await made.shutdown()
            await questions.close()


@pytest.fixture(scope="module")
def table(rds: RdsLike, migration: Migration, object_store: ObjectStore) -> Table:
    return Table(rds, rds.new_database(template=migration.database), object_store)


class Gated:
    """S3's client, whose copies wait until a test opens the gate, or fail."""

    def __init__(self, store: ObjectStore, *, passing: str = "") -> None:
        self._client = store.client
        self._passing = passing
        self.open = self.asked = False
        self.copies = 0
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def copy_object(self, **arguments: Any) -> Any:
        if self.error is not None:
            raise self.error
        self.asked = True
        for _ in range(1000):
            if self.open or (self._passing and self._passing in arguments["Key"]):
                break
            time.sleep(0.01)
        self.copies += 1
        return self._client.copy_object(**arguments)


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about in 30 s")


async def test_version_without_a_seal_is_sealed_when_it_is_asked_for(table: Table) -> None:
    name = table.add()
    async with table.sealing(at_registration=False) as server:
        seal = await server.ensure(name, "1")
    assert seal is not None
    assert table.row(name) == (READY, None, seal.location)
    assert table.store.read(seal.prefix) == FILES
    ((tag,),) = table.execute(
        f"SELECT value FROM model_version_tags WHERE name = '{name}' AND key = 'mlflow_aws.seal'"
    )
    assert Seal.read(tag) == seal
    assert json.loads(tag).keys() == {
        "at", "bucket", "prefix", "manifest", "sha256", "files", "bytes", "source"
    }  # fmt: skip


async def test_sealed_version_is_not_copied_again(table: Table) -> None:
    name = table.add()
    async with table.sealing() as server:
        first = await server.ensure(name, "1")
    async with table.sealing(client=lambda: pytest.fail("nothing is asked of S3")) as other:
        assert await other.ensure(name, "1") == first


async def test_backlog_is_what_waits_for_a_seal_and_what_cannot_have_one(table: Table) -> None:
    async with table.sealing() as server:
        before = await server.backlog()
        pending, live = table.add(status=PENDING), table.add(stage="Production")
        failed, _ = table.add(status=FAILED), table.add()
        await server.backlog()
        # One that this process has known for long.
        server._waiting[pending, 1] -= 5000
        found = await server.backlog()
        for name in (pending, live):
            await server.ensure(name, "1")
        table.execute(f"UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE name = '{failed}'")
        after = await server.backlog()
    assert {name: found[name] - before[name] for name in ("SealingBacklog", "SealingFailed")} == {
        "SealingBacklog": 2,
        "SealingFailed": 1,
    }
    assert found["SealingOldest"] >= 5000
    assert after["SealingOldest"] < 5000
    assert [after[name] for name in ("SealingBacklog", "SealingFailed")] == [
        before[name] for name in ("SealingBacklog", "SealingFailed")
    ]


async def test_several_who_ask_at_once_get_the_same_seal(table: Table) -> None:
    name = table.add(status=PENDING)
    async with table.sealing() as one, table.sealing() as two:
        asking = (each.ensure(name, "1") for each in (one, one, one, two))
        seals = await asyncio.gather(*asking, return_exceptions=True)
        seal = await one.ensure(name, "1")
    assert seal is not None
    assert {each for each in seals if isinstance(each, Seal)} == {seal}
    assert all(isinstance(each, Seal | SealingBegunError) for each in seals)


@pytest.mark.parametrize("version", ["2", "0", "", "x", "1 OR 1=1", "٣"])
async def test_version_that_does_not_exist_has_no_seal(version: str, table: Table) -> None:
    name = table.add()
    async with table.sealing() as server:
        assert await server.ensure(name, version) is None
        assert await server.ensure("nobody", "1") is None


async def test_prompt_has_no_seal_and_needs_none(table: Table) -> None:
    name = table.add()
    table.execute(f"UPDATE model_versions SET source = 'dummy-source' WHERE name = '{name}'")
    async with table.sealing() as server:
        assert await server.ensure(name, "1") is None


async def test_a_tag_makes_no_model_a_prompt(table: Table) -> None:
    name = table.add()
    table.execute(
        "INSERT INTO model_version_tags (workspace, name, version, key, value)"
        f" VALUES ('default', '{name}', 1, 'mlflow.prompt.is_prompt', 'true')"
    )
    async with table.sealing() as server:
        assert await server.ensure(name, "1") is not None


async def test_longer_copy_is_pending_and_says_how_far_it_is(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "_ENSURE_SECONDS", 0.2)
    monkeypatch.setattr(sealing, "_PROGRESS_SECONDS", 0.05)
    gate = Gated(table.store)
    name = table.add()
    async with table.sealing(at_registration=False, client=lambda: gate) as server:
        with pytest.raises(SealingBegunError, match="is being sealed") as refused:
            await server.ensure(name, "1")
        assert (refused.value.status, refused.value.retry_after) == (503, 2)
        assert table.row(name)[:2] == (PENDING, f"0 of {len(FILES)} files are copied.")
        gate.open = True
        await until(lambda: table.row(name)[0] == READY)
        assert await server.ensure(name, "1") is not None


async def test_version_that_cannot_be_sealed_is_refused_with_the_remedy(table: Table) -> None:
    name = table.add(files={})
    async with table.sealing() as server:
        with pytest.raises(NotSealedError, match="log the model first") as refused:
            await server.ensure(name, "1")
    assert refused.value.status == 409
    status, message, _ = table.row(name)
    assert status == FAILED
    assert "log the model first" in message


async def test_failed_version_is_tried_again_when_it_is_asked_for(table: Table) -> None:
    name = table.add(status=FAILED)
    async with table.sealing() as server:
        assert await server.ensure(name, "1") is not None
    assert table.row(name)[0] == READY


@pytest.mark.parametrize("live", [False, True])
async def test_failed_version_is_left_alone_unless_it_is_live(live: bool, table: Table) -> None:
    name = table.add(status=FAILED, stage="Production" if live else "None")
    waiting = table.add(status=PENDING)
    async with table.sealing(started=True):
        await until(lambda: table.row(waiting)[0] == READY)
        await asyncio.sleep(0.5)
    assert table.row(name)[0] == (READY if live else FAILED)


async def test_who_waits_does_not_wait_for_what_the_background_seals(table: Table) -> None:
    wanted = table.add()
    gate = Gated(table.store, passing=wanted)
    many = {str(number): b"x" for number in range(10)}
    waiting = [table.add(status=PENDING, files=many) for _ in range(6)]
    async with table.sealing(client=lambda: gate, started=True) as server:
        await until(lambda: gate.asked)
        await asyncio.sleep(1)
        assert await server.ensure(wanted, "1") is not None
        assert any(table.row(name)[0] == PENDING for name in waiting)
        gate.open = True
        await until(lambda: all(table.row(name)[0] == READY for name in waiting))


async def test_failure_of_s3_is_told_and_tried_again(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_FIRST_RETRY_SECONDS", 0.1)
    gate = Gated(table.store)
    gate.error = OSError("no route to S3")
    name = table.add(status=PENDING)
    async with table.sealing(client=lambda: gate, started=True):
        await until(lambda: "Attempt 2" in (table.row(name)[1] or ""))
        assert table.row(name)[0] == PENDING
        assert "no route to S3" in table.row(name)[1]
        gate.error, gate.open = None, True
        await until(lambda: table.row(name)[0] == READY)


async def test_failure_of_s3_leaves_a_live_version_as_it_is(table: Table) -> None:
    gate = Gated(table.store)
    gate.error = OSError("no route to S3")
    name = table.add(stage="Production")
    before = table.row(name)
    async with table.sealing(client=lambda: gate) as server:
        with pytest.raises(SealingBegunError):
            await server.ensure(name, "1")
    assert table.row(name) == before


async def test_long_messages_fit_mlflows_column(table: Table) -> None:
    gate = Gated(table.store)
    gate.error = OSError("x" * 2000)
    name = table.add()
    async with table.sealing(client=lambda: gate) as server:
        with pytest.raises(SealingBegunError):
            await server.ensure(name, "1")
    assert len(table.row(name)[1]) == 500


async def test_version_deleted_meanwhile_stays_deleted(table: Table) -> None:
    gate = Gated(table.store)
    name = table.add(status=PENDING)
    source = table.row(name)[2]
    async with table.sealing(client=lambda: gate) as server:
        asked = asyncio.create_task(server.ensure(name, "1"))
        await asyncio.sleep(0.3)
        table.execute(f"UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE name = '{name}'")
        gate.open = True
        assert await asked is None
    assert table.row(name)[2] == source
    assert table.execute(f"SELECT FROM model_version_tags WHERE name = '{name}'") == []


async def test_model_made_anew_meanwhile_does_not_get_the_old_ones_copy(table: Table) -> None:
    gate = Gated(table.store)
    name = table.add(status=PENDING)
    async with table.sealing(client=lambda: gate) as server:
        asked = asyncio.create_task(server.ensure(name, "1"))
        await asyncio.sleep(0.3)
        table.execute(f"UPDATE model_versions SET creation_time = creation_time + 1 WHERE name = '{name}'")
        gate.open = True
        with pytest.raises(SealingBegunError):
            await asked
        assert table.row(name)[0] == PENDING
        seal = await server.ensure(name, "1")
    assert seal is not None
    assert table.row(name)[2] == seal.location


async def test_lost_connection_ends_the_copy_before_another_server_begins(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "_ENSURE_SECONDS", 0.2)
    gate = Gated(table.store)
    name = table.add(status=PENDING, files={str(number): b"x" for number in range(60)})
    async with table.sealing(client=lambda: gate) as server:
        with pytest.raises(SealingBegunError):
            await server.ensure(name, "1")
        table.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database ="
            f" (SELECT oid FROM pg_database WHERE datname = '{table.database}')"
        )
        await asyncio.sleep(0.2)
        gate.open = True
        await until(lambda: not server._running)
        assert gate.copies < 30
        assert table.row(name)[0] == PENDING
        monkeypatch.setattr(sealing, "_ENSURE_SECONDS", 20)
        assert await server.ensure(name, "1") is not None


async def test_shutdown_waits_for_what_is_being_copied_and_frees_the_version(table: Table) -> None:
    gate = Gated(table.store)
    name = table.add(status=PENDING)
    async with table.sealing(client=lambda: gate, started=True):
        await until(lambda: gate.asked)
        asyncio.get_running_loop().call_later(0.3, setattr, gate, "open", True)
    assert gate.open, "a copy was under way when the server gave up its locks"
    assert _locks(table) == 0
    async with table.sealing() as server:
        seal = await server.ensure(name, "1")
    assert seal is not None
    assert table.store.read(seal.prefix) == FILES


def _locks(table: Table) -> int:
    return len(
        table.execute(
            "SELECT FROM pg_locks WHERE locktype = 'advisory' AND database ="
            f" (SELECT oid FROM pg_database WHERE datname = '{table.database}')"
        )
    )


async def test_one_server_holds_a_version_and_others_see_it(table: Table) -> None:
    one, two = SealLocks(table.connect), SealLocks(table.connect)
    async with one.hold("m", 1) as held, one.hold("m", 2) as also:
        assert held is not None
        assert also is not None
        async with two.hold("m", 1) as refused, two.hold("n", 1) as other:
            assert refused is None
            assert other is not None
    async with two.hold("m", 1) as free:
        assert free is not None
    assert _locks(table) == 0


async def test_a_worker_has_one_connection_for_locks_and_none_when_it_has_no_lock(table: Table) -> None:
    opened: list[Any] = []

    async def connect() -> Any:
        opened.append(await table.connect())
        return opened[-1]

    locks = SealLocks(connect)
    async with locks.hold("m", 1), locks.hold("m", 2), locks.hold("m", 3):
        assert len(opened) == 1
    assert opened[0].is_closed()
    async with locks.hold("m", 1):
        assert len(opened) == 2


def test_mlflow_commits_a_version_as_pending_and_of_its_principal(table: Table) -> None:
    from mlflow.entities.model_registry import ModelVersionTag
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
    from mlflow_aws_server.sealing.listener import NewVersions

    place = f"host={table.rds.postgres.socket_directory}&port={table.rds.port}"
    uri = f"postgresql+psycopg2://postgres@/{table.database}?{place}"
    store = SqlAlchemyStore(uri)
    name = f"model-{secrets.token_hex(4)}"
    store.create_registered_model(name)
    watching = NewVersions(pending=True)
    watching.watch()
    try:
        tag = ModelVersionTag("mlflow_aws.principal", "arn:aws:iam::123456789012:role/" + "x" * 300)
        made = store.create_model_version(name, "s3://bucket/runs/x", tags=[tag])
        prompt = store.create_model_version(name, "dummy-source")
    finally:
        watching.ignore()
        store.engine.dispose()
    assert (made.status, made.user_id) == (PENDING, tag.value[:256])
    assert table.row_of(name, 1) == (PENDING, tag.value[:256])
    assert (prompt.status, prompt.user_id) == (READY, None)
