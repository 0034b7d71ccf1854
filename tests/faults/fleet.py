"""A small deployment: servers behind a load balancer, a database with a standby, S3, issuers of tokens."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import hashlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from local.edge.balancer import ActionContext, Balancer, Configuration
from local.edge.listener import Action
from local.edge.target_group import Target, TargetGroup
from local.parts.http_server import JsonHandler, serving
from local.parts.ports import free_port
from local.parts.postgres import Postgres
from tests.conftest import RdsLike
from tests.faults.relay import LoopThread, TcpRelay
from tests.faults.writers import POINTS, Acknowledged, TrainingWriters
from tests.object_store import ObjectStore
from tests.server.conftest import PUBLIC_HOST, SERVER_PYTHON, Identity, deployment
from tests.server.standby import DATABASE, Pair, replicated

_USER = "mlflow_server"
_WAIT_SECONDS = 120
# AWS's are 60 s, and ten failures 20 s apart: waited for in earnest, one fault would take minutes.
IDLE_SECONDS = 5.0
_HEALTH = {"interval": 0.5, "timeout": 2.0, "healthy_after": 2, "unhealthy_after": 3}
# So little that credentials end between two logins at the database.
_CREDENTIAL_SECONDS = 20


class LogDriver:
    """Reads what servers write to their standard output, as ECS's log driver does, unless it is `stuck`."""

    def __init__(self) -> None:
        self.stuck = threading.Event()
        self._ends: dict[int, bytearray] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def pipe(self) -> tuple[int, int]:
        """The reading and the writing end of a new pipe of one page, so that it is soon full."""
        reading, writing = os.pipe()
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
        self._ends[reading] = bytearray()
        return reading, writing

    def text(self, reading: int) -> str:
        """What has been read so far from this pipe."""
        return bytes(self._ends[reading]).decode(errors="replace")

    def stop(self) -> None:
        """End the thread and close the pipes."""
        self.stuck.clear()
        self._stop.set()
        self._thread.join(10)
        for end in self._ends:
            os.close(end)

    def _read(self) -> None:
        while not self._stop.is_set():
            if self.stuck.is_set() or not self._ends:
                time.sleep(0.02)
                continue
            for end in select.select(list(self._ends), [], [], 0.05)[0]:
                self._ends[end] += os.read(end, 65536)
                if not self._ends[end]:
                    time.sleep(0.01)


@dataclass
class FleetServer:
    """One task."""

    process: subprocess.Popen[bytes]
    target: Target
    port: int
    log: int

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> None:
        """End it whatever state it is in."""
        for number in (signal.SIGCONT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
        self.process.wait(60)


@dataclass
class RoleCredentials:
    """The endpoint at which a task gets its role's credentials, which end soon; `available` or not."""

    available: bool = True
    url: str = ""

    @contextmanager
    def serving(self) -> Iterator[RoleCredentials]:
        """Answer at `url` until the end of the `with` block."""
        endpoint = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                if not endpoint.available:
                    self.answer(503, {"message": "unavailable"})
                    return
                ends = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_CREDENTIAL_SECONDS)
                self.answer(
                    200,
                    {
                        "AccessKeyId": "ASIAEXAMPLEEXAMPLE",
                        "SecretAccessKey": "example",
                        "Token": "example",
                        "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    },
                )

        with serving(Handler) as port:
            self.url = f"http://127.0.0.1:{port}/credentials"
            yield self


@contextmanager
def _token_service(identity: Identity) -> Iterator[str]:
    """GetWebIdentityToken, with tokens that must be renewed every three seconds."""

    class Handler(JsonHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seconds = 33
            token = identity.token("contributor", seconds=seconds)
            ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
            body = (
                '<GetWebIdentityTokenResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                f"<GetWebIdentityTokenResult><WebIdentityToken>{token}</WebIdentityToken>"
                f"<Expiration>{ends}</Expiration></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}"


class _Edge(Balancer):
    """The laptop's load balancer, with one rule; the servers are told the public host."""

    def _headers_for_target(self, request: web.BaseRequest, context: ActionContext) -> Any:
        headers = super()._headers_for_target(request, context)
        headers["Host"] = PUBLIC_HOST
        return headers


@dataclass(kw_only=True)
class Servers:
    """Tasks behind the laptop's load balancer."""

    log_driver: LogDriver
    environ: Mapping[str, str]
    url: str
    group: TargetGroup
    servers: list[FleetServer] = field(default_factory=list)

    def start(self, *, wait: bool = True, **overrides: str) -> FleetServer:
        """Start one more server; return once the load balancer sends requests to it, unless told not to."""
        port = free_port()
        reading, writing = self.log_driver.pipe()
        process = subprocess.Popen(
            [SERVER_PYTHON, "-m", "mlflow_aws_server", "serve"],
            env={**self.environ, "MLFLOW_AWS_PORT": str(port), **overrides},
            stdout=writing,
            stderr=writing,
            stdin=subprocess.DEVNULL,
        )
        os.close(writing)
        address = f"127.0.0.1:{port}"
        server = FleetServer(process, Target(name=address, address=address), port, reading)
        self.servers.append(server)
        self.group.targets = {**self.group.targets, address: server.target}
        if wait:
            self.until(server, "healthy")
        return server

    def until(self, server: FleetServer, state: str) -> None:
        """Return once the load balancer finds this server to be in this state."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while server.target.state != state:
            assert time.monotonic() < deadline, self.log_driver.text(server.log)[-3000:]
            time.sleep(0.05)

    def deregister(self, server: FleetServer) -> None:
        """Let the load balancer forget a server, which ends what it has begun."""
        self.group.targets = {
            name: each for name, each in self.group.targets.items() if each is not server.target
        }
        self.servers.remove(server)

    def remove(self, server: FleetServer) -> None:
        """End a server at once, and let the load balancer forget it."""
        server.end()
        self.deregister(server)


@dataclass(kw_only=True)
class Fleet(Servers):
    """What a fault happens to."""

    identity: Identity
    pair: Pair
    database: TcpRelay
    s3: TcpRelay
    store: ObjectStore
    credentials: RoleCredentials
    sts: str
    primary: Postgres | None = None
    experiment: str = ""

    def heal(self) -> None:
        """Two healthy servers, whatever a fault left."""
        for server in list(self.servers):
            if server.process.poll() is not None or len(self.servers) > 2:
                self.remove(server)
        while len(self.servers) < 2:
            self.start(wait=False)
        for server in self.servers:
            self.until(server, "healthy")

    def administer(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement on whatever is the primary now."""
        assert self.primary is not None
        with self.primary.cursor(DATABASE) as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def missing(self, writers: TrainingWriters) -> list[Acknowledged]:
        """What was acknowledged and is not stored as it was sent."""
        return [
            *missing_rows(self.administer, writers.runs, writers.acknowledged),
            *(each for each in writers.acknowledged if each.kind == "files" and not self._is_in_s3(each)),
        ]

    def doubled(self, writers: TrainingWriters) -> int:
        """How many batches are stored more than once, or in part."""
        return doubled(self.administer, writers.runs)

    def _is_in_s3(self, each: Acknowledged) -> bool:
        key = f"runs/{self.experiment}/{each.run}/artifacts/{each.step}.bin"
        content = self.store.client.get_object(Bucket=self.store.bucket, Key=key)["Body"].read()
        return hashlib.sha256(content).hexdigest() == each.digest


Ask = Callable[[str], list[tuple[Any, ...]]]


def missing_rows(ask: Ask, runs: Iterable[str], acknowledged: Iterable[Acknowledged]) -> list[Acknowledged]:
    """The points and tags that were acknowledged and are not stored as they were sent."""
    rows = ask(
        "SELECT run_uuid, step, count(DISTINCT key) FROM metrics "
        f"WHERE run_uuid IN ({_quoted(runs)}) GROUP BY 1, 2"
    )
    points = {(run, step): count for run, step, count in rows}
    tags = {key for (key,) in ask("SELECT key FROM experiment_tags")}
    lost: dict[str, Callable[[Acknowledged], bool]] = {
        "points": lambda each: points.get((each.run, each.step)) != POINTS,
        "tags": lambda each: f"{each.run}-{each.step}" not in tags,
    }
    return [each for each in acknowledged if each.kind in lost and lost[each.kind](each)]


def doubled(ask: Ask, runs: Iterable[str]) -> int:
    """How many batches of these runs are stored more than once, or in part."""
    rows = ask(
        "SELECT count(*) FROM (SELECT FROM metrics "
        f"WHERE run_uuid IN ({_quoted(runs)}) GROUP BY run_uuid, step HAVING count(*) <> {POINTS}) AS odd"
    )
    return int(rows[0][0])


def _quoted(runs: Iterable[str]) -> str:
    return ", ".join(f"'{run}'" for run in runs)


@contextmanager
def fleet(rds: RdsLike, identity: Identity, store: ObjectStore) -> Iterator[Fleet]:
    """Two servers, healthy, on a database of their own."""
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(LoopThread().running())
        made = stack.enter_context(deployment(rds, identity))
        pair = stack.enter_context(replicated())
        pair.write(
            f"CREATE ROLE {_USER} LOGIN IN ROLE rds_iam;"
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {_USER};"
            f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO {_USER}"
        )
        database = TcpRelay(loop, (pair.writer.host, pair.writer.port))
        host, _, port = store.endpoint.removeprefix("http://").partition(":")
        s3 = TcpRelay(loop, (host, int(port)))
        credentials = stack.enter_context(RoleCredentials().serving())
        log_driver = LogDriver()
        stack.callback(log_driver.stop)
        environ = {
            **{name: value for name, value in made.environ.items() if not name.startswith("AWS_ACCESS")},
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": credentials.url,
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{s3.port}",
            "MLFLOW_AWS_DATABASE_HOST": "127.0.0.1",
            "MLFLOW_AWS_DATABASE_PORT": str(database.port),
            "MLFLOW_AWS_DATABASE_NAME": DATABASE,
            "MLFLOW_AWS_DATABASE_USER": _USER,
            "MLFLOW_AWS_DATABASE_CA_FILE": str(pair.ca_file),
        }
        for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            environ.pop(name)
        group, url, _ = balanced(loop)
        sts = stack.enter_context(_token_service(identity))
        site = Fleet(
            identity=identity, pair=pair, database=database, s3=s3, store=store, credentials=credentials,
            log_driver=log_driver, environ=environ, url=url, sts=sts, group=group, primary=pair.writer,
        )  # fmt: skip
        try:
            site.heal()
            yield site
        finally:
            for server in site.servers:
                server.end()


def balanced(loop: LoopThread) -> tuple[TargetGroup, str, list[int]]:
    """A load balancer: its target group, its URL, and its answers of 500 and more, from now on."""
    group = TargetGroup(path="/ready", codes=frozenset((200,)), **_HEALTH)  # type: ignore[arg-type]
    refused: list[int] = []
    return group, loop.run(_balance(group, refused)), refused


async def _balance(group: TargetGroup, refused: list[int]) -> str:
    """Serve the group on a loopback port for as long as the event loop runs."""
    edge = _Edge(
        Configuration(
            rules=(), groups={"all": group}, idle_seconds=IDLE_SECONDS, drop_invalid_headers=True, tls=""
        )
    )
    forward = Action("forward", {"TargetGroupArn": "all"})

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = await edge.forward(request, forward, ActionContext())
        if response.status >= 500:
            refused.append(response.status)
        return response

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    _KEPT.append(asyncio.create_task(edge.check_targets()))
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


# Otherwise only the event loop would know the task, and weakly.
_KEPT: list[asyncio.Task[None]] = []
