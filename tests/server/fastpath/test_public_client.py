"""MLflow's own client, over HTTP, cannot tell the fast path from stock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException, RestException
from mlflow.server import handlers
from mlflow_aws_server.database.connect import connect_async
from mlflow_aws_server.fastpath import FastPath

from tests.server.fastpath.harness import Pair, Side


@contextmanager
def over_http(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on", loop="uvloop"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def with_client(side: Side) -> Iterator[MlflowClient]:
    """A client of this side; ours has a fast path of its own, in the server's event loop."""
    handlers._tracking_store = side.store
    app = side.app
    if side.fast_path is not None:

        async def open_connection() -> Any:
            return await connect_async(
                host=side.socket, port=side.port, user="postgres", database=side.name, ssl=False
            )

        app = FastPath(side.fast_path._app, open_connection, connections=4)
    with over_http(app) as url:
        yield MlflowClient(url)


def tour(client: MlflowClient) -> Iterator[object]:
    """Do what trainers do and say what is seen on the way; ids are left out."""
    run_id = client.create_run("0", start_time=17, tags={"t": "1"}, run_name="tour").info.run_id
    client.log_param(run_id, "lr", 0.1)
    for step in range(5):
        client.log_metric(run_id, "loss", 1 / (step + 1), timestamp=step, step=step)
    client.log_metric(run_id, "odd", float("nan"), timestamp=1)
    client.log_metric(run_id, "odd", float("inf"), timestamp=2)
    client.log_batch(
        run_id,
        metrics=[Metric("acc", i / 7, i, i) for i in range(20)],
        params=[Param("batch", "32")],
        tags=[RunTag("kind", "ü")],
    )
    client.set_tag(run_id, "later", "x" * 100)
    yield [(m.key, str(m.value), m.timestamp, m.step) for m in client.get_metric_history(run_id, "loss")]
    yield [(m.key, str(m.value), m.timestamp, m.step) for m in client.get_metric_history(run_id, "odd")]
    yield client.get_metric_history(run_id, "nothing")
    mistakes: list[Callable[[], object]] = [
        lambda: client.log_param(run_id, "lr", 0.2),
        lambda: client.log_metric(run_id, "a//b", 1.0),
        lambda: client.log_batch(run_id, params=[Param("lr", "7")]),
        lambda: client.get_run("0" * 32),
        lambda: client.search_runs(["0"], "nonsense"),
        lambda: client.log_metric("0" * 32, "m", 1.0),
    ]
    for wrong in mistakes:
        with pytest.raises(MlflowException) as refused:
            wrong()
        error = refused.value
        yield (error.error_code, str(error).replace(run_id, "RUN"), isinstance(error, RestException))
    client.update_run(run_id, name="renamed")
    client.set_terminated(run_id, "FAILED", end_time=99)
    run = client.get_run(run_id)
    yield (
        run.info.run_name,
        run.info.status,
        run.info.start_time,
        run.info.end_time,
        run.info.lifecycle_stage,
    )
    yield (str(run.data.metrics), run.data.params, run.data.tags)
    for i in range(4):
        other = client.create_run("0", start_time=100 + i, run_name=f"other {i}")
        client.log_metric(other.info.run_id, "acc", i, timestamp=1)
    client.delete_run(other.info.run_id)
    for question, order, view in (
        ("", None, ViewType.ACTIVE_ONLY),
        ("metrics.acc > 1", ["metrics.acc DESC"], ViewType.ALL),
        ("tags.kind = 'ü'", None, ViewType.ALL),
        ("", ["start_time ASC"], ViewType.DELETED_ONLY),
    ):
        found = client.search_runs(["0"], question, run_view_type=view, order_by=order)
        yield [(r.info.run_name, r.data.metrics, r.data.params) for r in found]
    token, names = None, []
    while True:
        page = client.search_runs(["0"], max_results=2, page_token=token)
        names.append([r.info.run_name for r in page])
        token = page.token
        if not token:
            break
    yield names
    client.delete_run(run_id)
    with pytest.raises(MlflowException) as refused:
        client.set_tag(run_id, "k", "v")
    yield str(refused.value).replace(run_id, "RUN")


def test_the_client_sees_the_same_on_both_sides(pair: Pair) -> None:
    with with_client(pair.stock) as client:
        expected = list(map(repr, tour(client)))
    left = pair.ours.left_to_stock
    with with_client(pair.ours) as client:
        seen = list(map(repr, tour(client)))
    assert seen == expected
    # Six errors, two deletions and one refusal are stock's; everything else was ours.
    assert pair.ours.left_to_stock - left == 9
