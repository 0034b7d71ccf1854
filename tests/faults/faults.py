"""The faults: what happens to a fleet while clients log, and what users are told of it."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from local.parts.postgres import Postgres
from tests.faults.fleet import Fleet
from tests.faults.writers import POINTS, Acknowledged, TrainingWriters
from tests.server.conftest import AUDIENCE, PROJECT

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_CLOCKS_DIFFER_BY = 295


@dataclass(frozen=True)
class Fault:
    """One row of the table."""

    name: str
    happens: str
    seen: str
    """By users; a sentence."""
    run: Callable[[Fleet, float], None]
    seconds: float = 3.0
    """How long it lasts in the tests."""
    full_seconds: float | None = None
    """In the table, if not as long."""
    files: bool = False


@dataclass(frozen=True)
class FaultResult:
    """What came of it."""

    seconds: float
    acknowledged: Mapping[str, int]
    stored: Mapping[str, int]
    lost: int
    doubled: int
    failed: int
    unavailable: float
    longest_call: float

    def as_record(self) -> dict[str, object]:
        """For JSON."""
        return {
            **asdict(self),
            "unavailable": round(self.unavailable, 1),
            "longest_call": round(self.longest_call, 1),
        }


def measure(fault: Fault, site: Fleet, *, full: bool = False) -> tuple[FaultResult, list[str]]:
    """Have it happen to a healthy fleet while clients log; also returns what calls of clients raised."""
    seconds = fault.full_seconds if full and fault.full_seconds else fault.seconds
    site.heal()
    writers = TrainingWriters(site.url, site.experiment, files=fault.files)
    writers.start()
    began = time.monotonic()
    try:
        fault.run(site, seconds)
        writers.go_on()
    finally:
        writers.stop()
    missing = site.missing(writers)
    seen = [each for each in writers.acknowledged if each.ended >= began]
    ends = [began, *sorted(each.ended for each in seen)]
    acknowledged = {
        kind: sum(_size(e.kind) for e in writers.acknowledged if e.kind == kind) for kind in _SIZES
    }
    result = FaultResult(
        seconds=seconds,
        acknowledged=acknowledged,
        stored={
            kind: number - sum(_size(each.kind) for each in missing if each.kind == kind)
            for kind, number in acknowledged.items()
        },
        lost=sum(_size(each.kind) for each in missing),
        doubled=site.doubled(writers),
        failed=len(writers.failed),
        unavailable=max(after - before for before, after in itertools.pairwise(ends)),
        longest_call=max(each.ended - each.began for each in seen),
    )
    return result, writers.failed


_SIZES = {"points": POINTS, "tags": 1, "files": 1}


def _size(kind: str) -> int:
    return _SIZES[kind]


def _server_killed(site: Fleet, seconds: float) -> None:
    site.servers[0].signal(signal.SIGKILL)
    time.sleep(seconds)
    site.remove(site.servers[0])
    site.start()


def _server_told_to_end(site: Fleet, seconds: float) -> None:
    old = site.servers[0]
    old.signal(signal.SIGTERM)
    old.process.wait(60)
    time.sleep(seconds)
    site.remove(old)
    site.start()


def _server_frozen(site: Fleet, seconds: float) -> None:
    frozen = site.servers[0]
    frozen.signal(signal.SIGSTOP)
    site.until(frozen, "unhealthy")
    time.sleep(seconds)
    frozen.signal(signal.SIGCONT)
    site.until(frozen, "healthy")


def _database_stopped(site: Fleet, seconds: float) -> None:
    database = _primary(site)
    database.stop(immediate=True)
    time.sleep(seconds)
    database.start()


def _connections_cut(site: Fleet, seconds: float) -> None:
    for _ in range(10):
        site.database.cut()
        time.sleep(seconds / 10)


def _database_read_only(site: Fleet, seconds: float) -> None:
    site.administer("ALTER SYSTEM SET default_transaction_read_only = on")
    site.administer("SELECT pg_reload_conf()")
    try:
        time.sleep(seconds)
    finally:
        site.administer("ALTER SYSTEM RESET default_transaction_read_only")
        site.administer("SELECT pg_reload_conf()")


def _failover(site: Fleet, seconds: float) -> None:
    old, new = site.pair.writer, site.pair.reader
    # As RDS does with several zones: acknowledged is what both have.
    site.administer("ALTER SYSTEM SET synchronous_standby_names = '*'")
    site.administer("SELECT pg_reload_conf()")
    while ("sync",) not in site.administer("SELECT sync_state FROM pg_stat_replication"):
        time.sleep(0.1)
    time.sleep(1)
    old.stop(immediate=True)
    time.sleep(seconds)
    site.primary = new
    with new.cursor() as cursor:
        cursor.execute("SELECT pg_promote()")
    with new.cursor() as cursor:
        cursor.execute("ALTER SYSTEM RESET synchronous_standby_names")
        cursor.execute("SELECT pg_reload_conf()")
    site.database.target = (new.host, new.port)
    site.database.cut()


def _s3_slows_down(site: Fleet, seconds: float) -> None:
    head = "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    site.s3.answer = f"{head}Content-Length: {len(_SLOW_DOWN)}\r\n\r\n".encode() + _SLOW_DOWN
    site.s3.cut()
    time.sleep(seconds)
    site.s3.answer = None


def _s3_slow(site: Fleet, seconds: float) -> None:
    site.s3.pause = 0.5
    time.sleep(seconds)
    site.s3.pause = 0.0


def _s3_cut(site: Fleet, seconds: float) -> None:
    # In the middle of a file.
    site.s3.most = 100_000
    time.sleep(seconds)
    site.s3.most = None


def _client_token_ends(_site: Fleet, seconds: float) -> None:
    # In this order, since calls are under way: the plugin's token replaces the other.
    os.environ["MLFLOW_TRACKING_AUTH"] = "aws"
    token = os.environ.pop("MLFLOW_TRACKING_TOKEN")
    try:
        time.sleep(seconds)
    finally:
        os.environ["MLFLOW_TRACKING_TOKEN"] = token
        del os.environ["MLFLOW_TRACKING_AUTH"]


def _server_credentials_end(site: Fleet, seconds: float) -> None:
    site.credentials.available = False
    # Whoever opens a connection now needs new ones.
    site.database.cut()
    time.sleep(seconds)
    site.credentials.available = True


def _issuers_gone_at_start(site: Fleet, seconds: float) -> None:
    _issuers(site, available=False)
    new = site.start(wait=False)
    site.remove(site.servers[0])
    try:
        time.sleep(seconds)
        while "nobody can be verified yet" not in site.log_driver.text(new.log):
            assert new.target.state == "initial"
            assert new.process.poll() is None, site.log_driver.text(new.log)
            time.sleep(0.1)
    finally:
        _issuers(site, available=True)
    site.until(new, "healthy")


def _issuers_gone_later(site: Fleet, seconds: float) -> None:
    _issuers(site, available=False)
    time.sleep(seconds)
    _issuers(site, available=True)


def _clocks_differ(site: Fleet, seconds: float) -> None:
    now, before = int(time.time()), os.environ["MLFLOW_TRACKING_TOKEN"]
    behind = {"iat": now + _CLOCKS_DIFFER_BY, "nbf": now + _CLOCKS_DIFFER_BY, "exp": now + 1200}
    # The client thinks that it has six minutes, the server that it has one.
    ahead = {"iat": now - 840, "exp": now + 60}
    for claims in (behind, ahead):
        os.environ["MLFLOW_TRACKING_TOKEN"] = site.identity.sts.token(
            subject=site.identity.arn("contributor"), audience=AUDIENCE, claims=claims
        )
        time.sleep(seconds / 2)
    os.environ["MLFLOW_TRACKING_TOKEN"] = before


def _disk_full(site: Fleet, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", directory], check=True)
        try:
            with (Path(directory) / "full").open("wb", buffering=0) as file:
                while True:
                    try:
                        file.write(b"x" * 4096)
                    except OSError:
                        break
            full = site.start(TMPDIR=directory)
            for other in [each for each in site.servers if each is not full]:
                site.remove(other)
            time.sleep(seconds)
            site.start()
            site.remove(full)
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)


def _client_dies(site: Fleet, seconds: float) -> None:
    where = site.url.removeprefix("http://").split(":")
    half = socket.create_connection((where[0], int(where[1])))
    token = os.environ["MLFLOW_TRACKING_TOKEN"]
    half.sendall(
        b"POST /api/2.0/mlflow/runs/log-batch HTTP/1.1\r\nHost: any\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + token.encode() + b'\r\nContent-Length: 1000\r\n\r\n{"run_id": "'
    )
    dying = TrainingWriters(site.url, site.experiment)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.dying_client", site.url, site.experiment],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        dying.runs.append(client.stdout.readline().strip())
        time.sleep(seconds)
        client.kill()
        told = [int(line) for line in client.stdout.read().splitlines() if line.strip()]
    half.close()
    assert told
    dying.acknowledged += [_told(dying.runs[0], step) for step in told]
    assert site.missing(dying) == []
    assert site.doubled(dying) == 0


def _log_driver_stuck(site: Fleet, seconds: float) -> None:
    site.log_driver.stuck.set()
    time.sleep(seconds)
    site.log_driver.stuck.clear()


def _told(run: str, step: int) -> Acknowledged:
    return Acknowledged("points", run, step, 0.0, 0.0)


def _primary(site: Fleet) -> Postgres:
    assert site.primary is not None
    return site.primary


def _issuers(site: Fleet, *, available: bool) -> None:
    site.identity.sts.available = site.identity.user_pool.available = available


# The failover is the last: the former primary does not come back.
FAULTS: tuple[Fault, ...] = (
    Fault("server killed", "one of two servers gets SIGKILL, and is replaced",
          "nothing: the client repeats what had no answer, and reaches the other server", _server_killed),
    Fault("server told to end", "SIGTERM without a word to the load balancer, as at a Spot interruption",
          "nothing: what has been accepted is finished, the rest repeated", _server_told_to_end),
    Fault("server frozen", "one of two servers gets SIGSTOP until it is unhealthy, later SIGCONT",
          "calls to it last until the load balancer gives up on them, then reach the other server",
          _server_frozen),
    Fault("database stopped", "PostgreSQL is shut down as if the power had failed, and started again",
          "calls pause; the client repeats them for four minutes", _database_stopped,
          seconds=5, full_seconds=20),
    Fault("connections cut", "all connections to the database are reset, ten times",
          "nothing: the server repeats what is safe to repeat", _connections_cut),
    Fault("read-only database", "the database refuses writes, as a former primary does",
          "calls pause; the client repeats them", _database_read_only,
          seconds=3, full_seconds=10),
    Fault("S3 answers SlowDown", "every request gets 503", "uploads pause", _s3_slows_down, files=True),
    Fault("S3 is slow", "half a second for each piece of 64 KB", "uploads take longer", _s3_slow, files=True),
    Fault("S3 cuts uploads", "connections are reset in the middle of a file", "uploads are repeated",
          _s3_cut, files=True),
    Fault("client's token ends", "tokens of 33 s, each renewed by `mlflow-aws-auth`", "nothing",
          _client_token_ends, seconds=7),
    Fault("server's credentials end", "the task's role gives none, and every connection is reset",
          "calls pause", _server_credentials_end),
    Fault("issuers unreachable at the start", "a new server finds no keys and the old one goes",
          "nothing: a server without keys gets no requests", _issuers_gone_at_start),
    Fault("issuers unreachable later", "STS's and the user pool's keys cannot be fetched",
          "nothing: known keys are good for 24 hours", _issuers_gone_later),
    Fault("clocks differ", "the server's clock is five minutes behind STS's, then ahead",
          "nothing", _clocks_differ),
    Fault("disk full", "the only server has a `/tmp` without room", "nothing", _disk_full),
    Fault("client dies", "one more client gets SIGKILL, another sends half a batch",
          "its last batch is stored as a whole or not at all", _client_dies),
    Fault("log driver stuck", "nobody reads what the servers log: their pipes of one page are full",
          "calls wait until somebody reads", _log_driver_stuck),
    Fault("failover", "the primary is gone, and a synchronous standby is promoted and gets its address",
          "calls pause", _failover, seconds=3, full_seconds=10),
)  # fmt: skip
