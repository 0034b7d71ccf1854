"""What a process says of its state."""

from __future__ import annotations

import asyncio
from typing import Any

from mlflow_aws_server.database.connect import connect_async
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.probes import of_database

from tests.conftest import RdsLike
from tests.server.conftest import Migration


async def test_the_oldest_transaction_is_another_s_and_ends_with_it(
    rds: RdsLike, migration: Migration
) -> None:
    database = rds.new_database(template=migration.database)

    async def connect() -> Any:
        socket = str(rds.postgres.socket_directory)
        return await connect_async(host=socket, port=rds.port, user="postgres", database=database, ssl=False)

    questions = ConnectionPool(connect, connections=1, queue=9)
    probe = of_database(questions)
    other = await connect()
    assert await probe() == {"OldestTransaction": 0}
    transaction = other.transaction()
    await transaction.start()
    await asyncio.sleep(0.2)
    oldest = (await probe())["OldestTransaction"]
    assert isinstance(oldest, float)
    assert oldest >= 0.2
    await transaction.rollback()
    assert await probe() == {"OldestTransaction": 0}
    await other.close()
    await questions.close()
