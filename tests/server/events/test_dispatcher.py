"""Every event reaches EventBridge, each model's in order, whoever fails or ends on the way."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from mlflow_aws_server.database.connect import connect_async
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.events.dispatcher import Dispatcher
from mlflow_aws_server.events.outbox import ADD

from tests.conftest import RdsLike
from tests.server.events.conftest import ARN


class EventBridge:
    """Takes entries, but for the calls and the models that `refuses` says."""

    def __init__(self, refuses: Callable[[dict[str, Any]], bool] = lambda _: False) -> None:
        self.refuses = refuses
        self.taken: list[dict[str, Any]] = []
        self.calls = 0
        self.fails: BaseException | None = None
        self.dies_after = False

    def put_events(self, *, Entries: list[dict[str, Any]]) -> Any:  # noqa: N803 - boto3's name
        self.calls += 1
        assert 0 < len(Entries) <= 10
        assert {each["EventBusName"] for each in Entries} == {ARN}
        if self.fails:
            raise self.fails
        answers: list[dict[str, str]] = []
        for each in Entries:
            detail = json.loads(each["Detail"])
            if self.refuses(detail):
                answers.append({"ErrorCode": "ThrottlingException"})
            else:
                self.taken.append(detail)
                answers.append({"EventId": "1"})
        if self.dies_after:
            raise KeyboardInterrupt
        return {"Entries": answers}


class World:
    """A database with an outbox, and any number of dispatchers."""

    def __init__(self, rds: RdsLike, database: str) -> None:
        self._where = {
            "host": str(rds.postgres.socket_directory),
            "port": rds.port,
            "user": "postgres",
            "database": database,
            "ssl": False,
        }
        self.pool = self.new_pool()

    def new_pool(self) -> ConnectionPool:
        return ConnectionPool(lambda: connect_async(**self._where), connections=1, queue=64)

    def dispatcher(self, bridge: EventBridge) -> Dispatcher:
        return Dispatcher(self.new_pool(), ARN, "eu-central-1", client=lambda: bridge)

    async def ask(self, statement: str, *arguments: Any) -> list[Any]:
        async def ask(connection: Any) -> list[Any]:
            found: list[Any] = await connection.fetch(statement, *arguments)
            return found

        return await self.pool.run(ask)

    async def add(self, model: str, number: int) -> None:
        await self.ask(ADD, "Model Alias Set", model, json.dumps({"model": model, "number": number}))

    async def left(self) -> int:
        count: int = (await self.ask("SELECT count(*) FROM mlflow_aws.events"))[0][0]
        return count


@pytest.fixture
def run(
    rds: RdsLike, new_mlflow_database: Callable[[], str]
) -> Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]:
    database = new_mlflow_database()

    def run(test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            await test(World(rds, database))

        asyncio.run(main())

    return run


def _numbers(taken: list[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for detail in taken:
        found[detail["model"]].append(detail["number"])
    return found


Run = Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]


def test_two_servers_send_each_event_once_and_each_model_s_in_order(run: Run) -> None:
    async def test(world: World) -> None:
        bridge = EventBridge()
        running = [world.dispatcher(bridge) for _ in range(2)]
        for each in running:
            await each.startup()
        for number in range(12):
            for model in "abcd":
                await world.add(model, number)
        for _ in range(600):
            if not await world.left():
                break
            await asyncio.sleep(0.1)
        await asyncio.gather(*(each.shutdown() for each in running))
        assert _numbers(bridge.taken) == {model: list(range(12)) for model in "abcd"}
        assert len({each["id"] for each in bridge.taken}) == 48

    run(test)


def test_an_event_that_is_refused_holds_up_its_model_only_and_is_sent_again(run: Run) -> None:
    async def test(world: World) -> None:
        bridge = EventBridge(refuses=lambda detail: detail["model"] == "a")
        dispatcher = world.dispatcher(bridge)
        for number in range(3):
            await world.add("a", number)
            await world.add("b", number)
        for _ in range(4):
            await dispatcher.send()
        assert _numbers(bridge.taken) == {"b": [0, 1, 2]}
        assert [row[0] for row in await world.ask("SELECT attempts FROM mlflow_aws.events ORDER BY number")][
            1:
        ] == [0, 0]
        backlog = await dispatcher.backlog()
        assert (backlog["EventsBacklog"], isinstance(backlog["EventsOldest"], int)) == (3, True)
        bridge.refuses = lambda _: False
        await world.ask("UPDATE mlflow_aws.events SET not_before = now()")
        while await world.left():
            assert await dispatcher.send() == 1
        assert _numbers(bridge.taken)["a"] == [0, 1, 2]

    run(test)


def test_while_eventbridge_is_out_of_reach_nothing_is_lost(run: Run) -> None:
    async def test(world: World) -> None:
        bridge = EventBridge()
        bridge.fails = EndpointConnectionError(endpoint_url="https://events")
        dispatcher = world.dispatcher(bridge)
        await world.add("a", 0)
        for _ in range(3):
            with pytest.raises(EndpointConnectionError):
                await dispatcher.send()
        assert await world.left() == 1
        bridge.fails = None
        assert await dispatcher.send() == 1
        assert await world.left() == 0

    run(test)


def test_a_server_that_ends_between_the_answer_and_the_deletion_repeats_the_event_with_its_id(
    run: Run,
) -> None:
    async def test(world: World) -> None:
        dying, other = EventBridge(), EventBridge()
        dying.dies_after = True
        await world.add("a", 0)
        with pytest.raises(KeyboardInterrupt):
            await world.dispatcher(dying).send()
        # Its lease still holds the others off.
        assert await world.dispatcher(other).send() == 0
        await world.ask("UPDATE mlflow_aws.dispatcher SET until = now()")
        assert await world.dispatcher(other).send() == 1
        assert [each["id"] for each in other.taken] == [each["id"] for each in dying.taken]

    run(test)
