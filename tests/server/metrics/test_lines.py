"""The lines from which CloudWatch makes the server's metrics."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

import pytest
from mlflow_aws_server import logs
from mlflow_aws_server.asgi import PRINCIPAL, ROUTE, Receive, Scope, Send
from mlflow_aws_server.identity import Lane, Principal, Role
from mlflow_aws_server.identity.access import route_of
from mlflow_aws_server.metrics import Measured, emf
from mlflow_aws_server.metrics.names import TABLE
from mlflow_aws_server.metrics.recorder import BOUNDS, Call, Counted, Recorder

from tests.server.conftest import PROJECT

_VIEWER = Role(name="viewer", permissions=frozenset())
_WHO = Principal(name="arn:aws:iam::123456789012:role/ada", roles=(_VIEWER,), lane=Lane.IAM)
_READ = Call("GET", "/api/2.0/mlflow/runs/get", "iam", "viewer", 200, False)


def _app(status: int | None, *headers: tuple[bytes, bytes]) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for message in ("startup", "shutdown"):
                await send({"type": f"lifespan.{message}.complete"})
                await receive()
            return
        scope[ROUTE], scope[PRINCIPAL] = route_of("GET", scope["path"]), _WHO
        if status is None:
            return
        if status < 0:
            raise ZeroDivisionError
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return app


async def _ask(measured: Measured, path: str = "/api/2.0/mlflow/logged-models/m-1") -> None:
    async def send(_: object) -> None:
        pass

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    await measured({"type": "http", "method": "GET", "path": path, "headers": []}, receive, send)


def _lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.fields for record in caplog.records if hasattr(record, "fields")]


async def _live(measured: Measured, until: asyncio.Event | None = None) -> None:
    """Start the application, wait, and end it in order."""

    async def receive() -> Any:
        if until is not None:
            await asyncio.wait_for(until.wait(), 30)
        return {}

    async def send(_: object) -> None:
        pass

    await measured({"type": "lifespan"}, receive, send)


@pytest.mark.parametrize(
    ("status", "headers", "counted"),
    [
        (200, (), {}),
        (404, (), {}),
        (401, (), {"Refused": 1}),
        (403, (), {"Refused": 1}),
        (429, (), {"Throttled": 1}),
        (500, (), {"ServerErrors": 1}),
        # The database is out of reach: nobody can say for how long.
        (503, (), {"ServerErrors": 1}),
        (503, ((b"retry-after", b"5"),), {"Throttled": 1}),
        # Its client is gone before there was an answer.
        (None, (), {}),
    ],
)
async def test_each_answer_counts_as_what_it_is(
    status: int | None, headers: tuple[Any, ...], counted: dict[str, int]
) -> None:
    recorder = Recorder()
    await _ask(Measured(_app(status, *headers), deployment=None, recorder=recorder))
    found = emf.values(recorder.end_minute())
    assert {"Requests": 1, **counted} == {
        name: found[name] for name in ("Requests", "ServerErrors", "Throttled", "Refused") if found[name]
    }


async def test_an_error_that_nobody_answered_is_a_server_error() -> None:
    recorder = Recorder()
    with pytest.raises(ZeroDivisionError):
        await _ask(Measured(_app(-1), deployment=None, recorder=recorder))
    assert emf.values(recorder.end_minute())["ServerErrors"] == 1


async def test_calls_are_told_apart_by_the_tables_route_and_never_by_the_clients_path() -> None:
    recorder = Recorder()
    measured = Measured(_app(200), deployment=None, recorder=recorder)
    for number in range(100):
        await _ask(measured, f"/api/2.0/mlflow/logged-models/m-{number}")
    assert recorder.minute.calls == {
        Call("GET", "/api/2.0/mlflow/logged-models/<id>", "iam", "viewer", 200, False): 100
    }


async def test_the_last_requests_before_the_end_are_in_a_last_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlflow_aws_server.metrics")
    recorder = Recorder()
    measured = Measured(_app(200), deployment="a-stack", recorder=recorder)
    for _ in range(3):
        await _ask(measured)
    await _live(measured)
    [line] = _lines(caplog)
    assert (line["Requests"], line["Deployment"]) == (3, "a-stack")
    assert recorder.end_minute() == Counted()


async def test_a_minute_without_a_request_has_its_line_too(caplog: pytest.LogCaptureFixture) -> None:
    """Silence of the server and no calls are two things."""
    caplog.set_level(logging.INFO, "mlflow_aws_server.metrics")
    written = asyncio.Event()

    async def probe() -> Mapping[str, object]:
        # Asked again, it has been told before.
        if _lines(caplog):
            written.set()
        return {"KeysAge": 7, "fast_path": "serving"}

    async def broken() -> Mapping[str, object]:
        raise ConnectionRefusedError("no database")

    await _live(
        Measured(_app(200), deployment="a", recorder=Recorder(), probes=[broken, probe], seconds=0.001),
        written,
    )
    first = _lines(caplog)[0]
    assert (first["Requests"], first["KeysAge"], first["fast_path"]) == (0, 7, "serving")
    assert "Latency" not in first


async def test_without_a_deployment_nothing_is_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mlflow_aws_server.metrics")
    await _live(Measured(_app(200), deployment=None, recorder=Recorder()))
    assert _lines(caplog) == []


def test_a_line_is_what_cloudwatch_reads() -> None:
    """CloudWatch User Guide, "Specification: Embedded metric format"."""
    minute = Counted()
    for number in range(5000):
        minute.spent["GET", "/", number % (len(BOUNDS) + 1)] = 1, 12345.6789
    minute.refused["arn:aws:iam::123456789012:role/" + "r" * 64] = 9
    others = dict.fromkeys((name for name in TABLE if name not in emf.values(minute)), 2**53)
    reasons = {"headers that only stock understands": 2**40, "a host or an origin that stock refuses": 2**40}
    minute.calls[_READ._replace(route="/ajax-api/3.0/mlflow/" + "r" * 60, status=500)] = 2**40
    found = {**emf.values(minute), **others, "fast_path": "f" * 100, "left_to_stock": reasons}
    line = emf.line("MlflowOnAws-prod-Service", found, now=1.0)
    [directive] = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("MLflowOnAws", [["Deployment"]])
    assert line["_aws"]["Timestamp"] == 1000
    assert [each["Name"] for each in directive["Metrics"]] == list(TABLE)
    for each in directive["Metrics"]:
        value = line[each["Name"]]
        values = value if isinstance(value, list) else [value]
        assert all(type(one) in (int, float) for one in values)
        assert len(values) <= 100
    record = logging.makeLogRecord({"msg": "metrics of a minute", "fields": line})
    text = logs.JsonFormatter().format(record)
    assert "…" not in text
    assert "\\u2026" not in text


@pytest.mark.parametrize("many", [1, 7, 100, 101, 1000, 60_001])
def test_latencies_keep_their_percentiles(many: int) -> None:
    recorder = Recorder()
    for number in range(many):
        # 98 of 100 calls take some 10 ms, two take 3 s.
        recorder.call(_READ, 3.0 if number % 100 >= 98 else 0.010)
    drawn = emf.values(recorder.end_minute())["Latency"]
    assert isinstance(drawn, list)
    slow = sum(value > 1000 for value in drawn)
    assert len(drawn) == min(many, 100)
    assert abs(slow - len(drawn) * 0.02) <= 1
    if many >= 100:
        assert drawn[99] == pytest.approx(3000)
        assert drawn[50] == pytest.approx(10)


def test_a_line_names_the_route_that_fails_and_the_one_that_takes_the_time() -> None:
    recorder = Recorder()
    for _ in range(9):
        recorder.call(_READ, 0.001)
    for seconds in (0.5, 1.5):
        recorder.call(_READ._replace(route="/slow"), seconds)
    for times, status, throttled in ((3, 500, False), (2, 503, False), (8, 503, True)):
        for _ in range(times):
            recorder.call(_READ._replace(route="/broken", status=status, throttled=throttled), 0.001)
    found = emf.values(recorder.end_minute())
    assert found["busiest"] == {"method": "GET", "route": "/slow", "calls": 2, "seconds": 2.0}
    assert found["failing"] == {**_READ._replace(route="/broken", status=500)._asdict(), "calls": 3}
    quiet = emf.values(Counted())
    assert "failing" not in quiet
    assert "busiest" not in quiet


def test_refusals_are_counted_by_principal_in_bounded_memory() -> None:
    recorder = Recorder()
    for number in range(50_000):
        recorder.refused(f"arn:aws:iam::123456789012:role/{number}")
    for _ in range(3):
        recorder.refused("arn:aws:iam::123456789012:role/7")
    assert len(recorder.minute.refused) == 1001
    found = emf.values(recorder.end_minute())
    assert (found["RefusedOfOnePrincipal"], found["refused_principal"]) == (49_000, "(others)")


async def test_the_longest_wait_for_the_database_is_kept_for_its_minute() -> None:
    recorder = Recorder()
    for seconds in (0.03, 0.0):
        await recorder.wait(asyncio.sleep(seconds))
    longest = emf.values(recorder.end_minute())["DatabaseWait"]
    assert isinstance(longest, float)
    assert longest >= 30
    assert emf.values(recorder.end_minute())["DatabaseWait"] == 0


def test_every_metric_is_documented() -> None:
    document = (PROJECT / "docs" / "metrics.md").read_text()
    rows = re.findall(
        r"^\| `([A-Z]\w+)` \| (\w+) \| (\w+) \| (?:the minute|now) \| \S", document, re.MULTILINE
    )
    assert rows == [(name, *metric) for name, metric in TABLE.items()]


def test_every_documented_metric_is_made_by_the_server() -> None:
    made = "".join(
        path.read_text()
        for path in (PROJECT / "server" / "mlflow_aws_server").rglob("*.py")
        if path.name != "names.py"
    )
    # Those of events are their outbox's.
    assert {name for name in TABLE if f'"{name}"' not in made} <= {"EventsBacklog", "EventsOldest"}
