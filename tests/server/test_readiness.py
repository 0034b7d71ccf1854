"""`/ready`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from mlflow_aws_server.asgi import Receive, Scope, Send
from mlflow_aws_server.fast_path_state import FastPathState
from mlflow_aws_server.readiness import Readiness


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"mlflow"})


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def _ask(
    app: Readiness,
    *,
    path: str = "/ready",
    method: str = "GET",
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    await app({"type": "http", "path": path, "method": method, "headers": headers}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def _broken() -> None:
    raise RuntimeError("the database's schema is old")


async def test_ready_when_the_database_is() -> None:
    assert await _ask(Readiness(_application, lambda: None)) == (200, b"")


async def test_503_without_detail_when_the_database_is_not() -> None:
    assert await _ask(Readiness(_application, _broken)) == (503, b"")


@pytest.mark.parametrize("name", [b"x-forwarded-for"])
async def test_requests_through_the_balancer_find_nothing(name: bytes) -> None:
    asked: list[int] = []
    app = Readiness(_application, lambda: asked.append(1))
    assert await _ask(app, headers=((name, b"203.0.113.7"),)) == (404, b"")
    assert not asked


async def test_other_methods_find_nothing() -> None:
    assert await _ask(Readiness(_application, lambda: None), method="POST") == (404, b"")


@pytest.mark.parametrize("path", ["/", "/ready/", "/readyz", "/api/2.0/mlflow/experiments/search"])
async def test_other_paths_are_passed_on(path: str) -> None:
    assert await _ask(Readiness(_application, _broken), path=path) == (299, b"mlflow")


async def test_answer_is_kept_for_some_seconds() -> None:
    clock, asked = _Clock(), [0]

    def check() -> None:
        asked[0] += 1

    app = Readiness(_application, check, fresh_seconds=5, clock=clock)
    await _ask(app)
    clock.now += 4.9
    await _ask(app)
    assert asked == [1]
    clock.now += 0.2
    await _ask(app)
    assert asked == [2]


async def test_failure_and_recovery_are_both_seen() -> None:
    clock = _Clock()
    outcome: list[Callable[[], None]] = [lambda: None]
    app = Readiness(_application, lambda: outcome[0](), fresh_seconds=5, clock=clock)
    statuses = []
    for check in (lambda: None, _broken, lambda: None):
        outcome[0] = check
        clock.now += 6
        statuses.append((await _ask(app))[0])
    assert statuses == [200, 503, 200]


async def test_many_askers_cost_one_question() -> None:
    asked, let_go = [0], threading.Event()

    def check() -> None:
        asked[0] += 1
        let_go.wait(10)

    app = Readiness(_application, check)
    askers = [asyncio.create_task(_ask(app)) for _ in range(20)]
    while not asked[0]:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    let_go.set()
    assert await asyncio.gather(*askers) == [(200, b"")] * 20
    assert asked == [1]


async def test_asker_who_hangs_up_does_not_take_the_answer_from_others() -> None:
    let_go = threading.Event()

    def check() -> None:
        let_go.wait(10)

    app = Readiness(_application, check)
    impatient = asyncio.create_task(_ask(app))
    patient = asyncio.create_task(_ask(app))
    await asyncio.sleep(0.05)
    impatient.cancel()
    let_go.set()
    assert await patient == (200, b"")


@pytest.mark.parametrize("outside", [False, True])
async def test_it_says_whether_the_fast_path_serves_but_not_to_the_world(outside: bool) -> None:
    state = FastPathState()
    told: list[bytes] = []

    async def send(message: Any) -> None:
        told.extend(value for name, value in message.get("headers", ()) if b"fast-path" in name)

    forwarded = ((b"x-forwarded-for", b"203.0.113.9"),) if outside else ()
    scope = {"type": "http", "path": "/ready", "method": "GET", "headers": forwarded}
    app = Readiness(_application, lambda: None, fast_path=state)
    state.serve(20)
    await app(scope, None, send)  # type: ignore[arg-type]
    state.step_aside("schema é")
    await app(scope, None, send)  # type: ignore[arg-type]
    assert told == ([] if outside else [b"serving", b"schema ?"])
