"""Two databases with MLflow's schema on the session's PostgreSQL: stock MLflow's and ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import RdsLike
    from tests.server.conftest import Migration
    from tests.server.fastpath.alone import Place
    from tests.server.fastpath.harness import Pair


@pytest.fixture(scope="session")
def new_mlflow_database(rds: RdsLike, migration: Migration) -> Callable[[], str]:
    """Makes databases with MLflow's schema, in milliseconds."""
    return lambda: rds.new_database(template=migration.database)


@pytest.fixture(scope="session")
def tested_mlflow() -> None:
    """Fails with what to do if the fast path would leave everything to the installed MLflow."""
    from mlflow.version import VERSION
    from mlflow_aws_server.fastpath.schema import TESTED_HEADS
    from mlflow_aws_server.fastpath.stock import TESTED_VERSIONS
    from mlflow_aws_server.schema import installed

    head = installed().head
    if VERSION not in TESTED_VERSIONS or head not in TESTED_HEADS:
        pytest.fail(
            f"The fast path does not know MLflow {VERSION} with the schema {head}. On a branch, add them to"
            " TESTED_VERSIONS (fastpath/stock.py) and TESTED_HEADS (fastpath/schema.py), and see which of"
            " these tests fail then: docs/upgrading-mlflow.md, section 3",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop that both sides run in."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def sides(
    rds: RdsLike,
    new_mlflow_database: Callable[[], str],
    tested_mlflow: None,
    loop: asyncio.AbstractEventLoop,
) -> Iterator[Pair]:
    """Stock MLflow and ours, for the whole session."""
    from tests.server.fastpath.harness import Pair, make_side

    socket = str(rds.postgres.socket_directory)
    stock = make_side(new_mlflow_database(), socket=socket, port=rds.port, loop=loop, ours=False)
    ours = make_side(new_mlflow_database(), socket=socket, port=rds.port, loop=loop, ours=True)
    yield Pair(stock=stock, ours=ours, loop=loop)
    assert ours.fast_path is not None
    loop.run_until_complete(ours.fast_path.shutdown())
    stock.close()
    ours.close()


@pytest.fixture
def pair(sides: Pair, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both sides, without any runs.

    A test fails if stock served one of our calls on our side, unless its marker `stock_may_serve` says so;
    and then too if stock served none of them (which may be, if the calls are drawn by chance), or all.
    """
    sides.empty()
    marker = request.node.get_closest_marker("stock_may_serve")
    sides.stock_may_serve = marker is not None
    yield sides
    if marker is not None:
        assert sides.left or "by_chance" in marker.args, (
            "stock served none of our calls: the marker stock_may_serve is wrong"
        )
        assert sides.served, "stock served all of our calls"


@pytest.fixture
def place(rds: RdsLike, new_mlflow_database: Callable[[], str], tested_mlflow: None) -> Place:
    """A database with MLflow's schema for one test alone."""
    from tests.server.fastpath.alone import Place

    return Place(rds, new_mlflow_database())
