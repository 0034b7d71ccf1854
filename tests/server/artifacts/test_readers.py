"""Readers of every speed and number: neither the server's memory nor its other work depends on them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest
from mlflow_aws_server import shares
from mlflow_aws_server.artifacts.bucket import Found
from mlflow_aws_server.artifacts.streams import Streams
from mlflow_aws_server.errors import OverloadedError
from mlflow_aws_server.limits import DOWNLOADS, DOWNLOADS_OF_ONE, TRACE_BYTES

from tests.server.artifacts.harness import Site

_SIZE = 4 * 2**20
_LARGE = 200 * 2**20


class Content:
    """Stands for S3: an object of zeros."""

    def __init__(self) -> None:
        self.read = 0

    async def part(self, _found: Found, first: int, last: int) -> bytes:
        await asyncio.sleep(0)
        self.read += last + 1 - first
        return bytes(last + 1 - first)


class Reader:
    """Takes what it is sent while `open` is set, and may leave."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.left = asyncio.Event()
        self.taken = 0
        self.complete = False

    async def send(self, message: Any) -> None:
        """What uvicorn does for a connection."""
        await self.open.wait()
        self.taken += len(message.get("body", b""))
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def receive(self) -> Any:
        """The end of the request."""
        await self.left.wait()
        return {"type": "http.disconnect"}


async def read(streams: Streams, reader: Reader, *, who: str = "viewer") -> None:
    found: Any = None
    await streams.send(
        found, range(_SIZE), status=200, headers=[], principal=who, receive=reader.receive, send=reader.send
    )


def test_reader_that_takes_nothing_loses_its_connection() -> None:
    async def run() -> None:
        content, reader = Content(), Reader()
        streams: Any = Streams(content, stalled_seconds=0.05)  # type: ignore[arg-type]
        await read(streams, reader)
        assert not reader.complete
        assert content.read <= 2**20

    asyncio.run(run())


def test_nothing_more_is_read_for_a_reader_who_left() -> None:
    async def run() -> None:
        content, reader = Content(), Reader()
        reader.open.set()
        reader.left.set()
        await read(Streams(content), reader)  # type: ignore[arg-type]
        assert content.read <= 2 * 2**20

    asyncio.run(run())


def test_downloads_of_one_caller_leave_room_for_others_and_what_is_too_many_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "LONGEST_WAIT_SECONDS", 0)

    async def run() -> None:
        streams: Any = Streams(Content())  # type: ignore[arg-type]
        readers = [Reader() for _ in range(DOWNLOADS.most + 1)]
        tasks = []
        for number, reader in enumerate(readers[:-1]):
            who = f"caller {number // DOWNLOADS_OF_ONE.most}"
            tasks.append(asyncio.create_task(read(streams, reader, who=who)))
            await asyncio.sleep(0)
            if number + 1 == DOWNLOADS_OF_ONE.most:
                with pytest.raises(OverloadedError):
                    await read(streams, readers[-1], who=who)
        with pytest.raises(OverloadedError) as refused:
            await read(streams, readers[-1], who="another")
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        for reader in readers:
            reader.open.set()
        await asyncio.gather(*tasks)
        assert all(reader.taken == _SIZE and reader.complete for reader in readers[:-1])
        await read(streams, readers[-1], who="another")

    asyncio.run(run())


def test_downloads_together_are_not_faster_than_leaves_time_for_other_work() -> None:
    async def run() -> float:
        streams: Any = Streams(Content())  # type: ignore[arg-type]
        readers = [Reader() for _ in range(3)]
        for reader in readers:
            reader.open.set()
        began = time.monotonic()
        await asyncio.gather(*(read(streams, reader, who=str(reader)) for reader in readers))
        assert all(reader.complete for reader in readers)
        return time.monotonic() - began

    assert asyncio.run(run()) >= 3 * _SIZE / (50 * 2**20)


@pytest.mark.slow
def test_memory_does_not_grow_with_large_artifacts_or_readers_who_stop(site: Site) -> None:
    run, _ = site.new_large(_LARGE)
    where: Any = {"run_id": run, "path": "large.bin"}
    one = {"Range": "bytes=0-0"}
    assert site.send("GET", "/get-artifact", headers=one, **where).status == 206
    before = site.registry.resident_bytes()
    with contextlib.ExitStack() as stalled:
        for _ in range(DOWNLOADS_OF_ONE.most):
            reader = stalled.enter_context(site.not_reading("/get-artifact", **where))
            assert reader.recv(15) == b"HTTP/1.1 200 OK"
        most = 0
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            most = max(most, site.registry.resident_bytes() - before)
            time.sleep(0.05)
        assert most < 40 * 2**20, most
        refused = site.send("GET", "/get-artifact", **where)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        # Others are served meanwhile, and so is everything else that the same caller asks.
        other = site.send("GET", "/get-artifact", role="contributor", **where)
        assert other.body == bytes(_LARGE)
        assert len(site.send("GET", "/api/2.0/mlflow/artifacts/list", run_id=run).json["files"]) == 1
    assert site.send("GET", "/get-artifact", headers=one, **where).status == 206
    assert site.registry.resident_bytes() - before < 40 * 2**20


def spans(site: Site, trace: str, size: int) -> None:
    """Give a trace spans of so many bytes in the database."""
    site.registry.execute(
        "INSERT INTO spans (trace_id, experiment_id, span_id, status, start_time_unix_nano,"
        " end_time_unix_nano, content)"
        f" SELECT '{trace}', 0, 'span', 'OK', 1, 2, repeat('x', {size})"
    )


@pytest.mark.parametrize("where", ["database", "archive"])
def test_traces_that_mlflow_would_hold_in_memory_are_not_read(site: Site, where: str) -> None:
    too_large = TRACE_BYTES.most + 1
    trace = f"tr-{where}"
    root = f"{site.registry.store.root}/0/traces/{trace}"
    tags = {"mlflow.artifactLocation": root}
    if where == "archive":
        tags |= {"mlflow.trace.spansLocation": "ARCHIVE_REPO", "mlflow.trace.archiveLocation": root}
        key = f"{root}/traces.pb".removeprefix(f"s3://{site.registry.store.bucket}/")
        site.registry.store.client.put_object(
            Bucket=site.registry.store.bucket, Key=key, Body=bytes(too_large)
        )
    else:
        tags |= {"mlflow.trace.spansLocation": "TRACKING_STORE"}
    site.registry.execute(
        "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status)"
        f" VALUES ('{trace}', 0, 1, 1, 'OK')"
    )
    for name, value in tags.items():
        site.registry.execute(
            f"INSERT INTO trace_tags (request_id, key, value) VALUES ('{trace}', '{name}', '{value}')"
        )
    if where == "database":
        spans(site, trace, too_large)
    for api in ("2.0", "3.0"):
        got = site.send("GET", f"/ajax-api/{api}/mlflow/get-trace-artifact", request_id=trace)
        if where == "archive":
            # MLflow's answer for an archive that it cannot read.
            assert (got.status, got.json) == (200, {"spans": []})
        else:
            assert got.status == 400
            assert "bytes of spans" in got.json["message"]
