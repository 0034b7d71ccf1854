"""Delivery of audit lines: in time or not at all, and never silently lost."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow_aws_server.identity import audit_log
from mlflow_aws_server.identity.audit_log import AuditLog, AuditPipe, AuditPipeError
from mlflow_aws_server.logs import LARGEST_LINE
from mlflow_aws_server.metrics import METRICS


@contextmanager
def _receiver(pipe: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The container `audit`, with its standard output in a file."""
    with out.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow_aws_server", "audit"],
            env={"PATH": os.environ["PATH"], "MLFLOW_AWS_AUDIT_PIPE": str(pipe)},
            stdout=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[int]:
    """A reader that reads nothing by itself, at the smallest pipe there is."""
    os.mkfifo(tmp_path / "lines")
    descriptor = os.open(tmp_path / "lines", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 4096)
    yield descriptor
    os.close(descriptor)


def _undelivered(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(each)["fields"]["audit_undelivered"] for each in caplog.records if hasattr(each, "fields")]


async def test_receiver_prints_what_was_written_before_and_after_it_is_told_to_end(tmp_path: Path) -> None:
    pipe, out = tmp_path / "lines", tmp_path / "out"
    with _receiver(pipe, out) as receiver:
        logs = [AuditLog(AuditPipe(pipe)) for _ in range(3)]
        for log in logs:
            # Waits for a receiver that starts later than the server.
            await log.open(b"first")
        # Only its own user reads, the server's group writes.
        assert stat.S_IMODE(pipe.stat().st_mode) == 0o620
        for number in range(3000):
            for log in logs:
                await log.write(b"%d " % number + b"x" * 400)
        receiver.send_signal(signal.SIGTERM)
        assert receiver.wait(60) == 0
    written = [b"first", *(b"%d " % number + b"x" * 400 for number in range(3000))]
    assert Counter(out.read_bytes().splitlines()) == dict.fromkeys(written, 3)


async def test_pipe_that_is_full_is_waited_for(tmp_path: Path, reader: int) -> None:
    log = AuditLog(AuditPipe(tmp_path / "lines"))
    line = b"x" * (LARGEST_LINE - 1)
    await log.write(line)
    waiting = asyncio.create_task(log.write(line))
    await asyncio.sleep(0)
    assert not waiting.done()
    for _ in range(2):
        while True:
            try:
                assert os.read(reader, 65536) == line + b"\n"
                break
            except BlockingIOError:
                await asyncio.sleep(0.01)
    await waiting


@pytest.mark.parametrize("lost", ["full", "gone", "never there"])
async def test_line_that_nobody_takes_goes_to_the_application_s_log_in_a_field(
    tmp_path: Path,
    reader: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    monkeypatch.setattr(audit_log, "_PATIENCE_SECONDS", 0.05)
    METRICS.end_minute()
    log = AuditLog(AuditPipe(tmp_path / ("no" if lost == "never there" else "lines")))
    if lost != "never there":
        await log.write(b"x" * (LARGEST_LINE - 1))
    if lost == "gone":
        # Its reader closes the pipe, which breaks it.
        os.dup2(os.open(os.devnull, os.O_RDONLY), reader)
    await log.write(b'{"number":2}')
    monkeypatch.setattr(audit_log, "_PATIENCE_SECONDS", 3600)
    # What was waited for in vain is not waited for again.
    await log.write(b'{"number":3}')
    assert _undelivered(caplog) == ['{"number":2}', '{"number":3}']
    assert METRICS.end_minute().counts["AuditUndelivered"] == 2


async def test_a_new_reader_gets_the_next_line(
    tmp_path: Path, reader: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "_PATIENCE_SECONDS", 0)
    log = AuditLog(AuditPipe(tmp_path / "lines"))
    await log.write(b"1")
    os.dup2(os.open(os.devnull, os.O_RDONLY), reader)
    await log.write(b"2")
    os.dup2(os.open(tmp_path / "lines", os.O_RDONLY | os.O_NONBLOCK), reader)
    await log.write(b"3")
    assert os.read(reader, 100) == b"3\n"
    assert _undelivered(caplog) == ["2"]


async def test_server_without_a_receiver_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "_PATIENCE_AT_START_SECONDS", 0)
    with pytest.raises(AuditPipeError, match="container `audit`"):
        await AuditLog(AuditPipe(tmp_path / "no")).open(b"started")


def test_every_process_has_a_name_of_its_own_and_counts_from_one() -> None:
    logs = [AuditLog(lambda _: None) for _ in range(100)]
    assert len({log.process for log in logs}) == 100
    assert [logs[0].number() for _ in range(3)] == [1, 2, 3]
    assert logs[1].number() == 1
