"""The servers that are compared, as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import perf_counter

from bench import resources
from bench.database import OWNER_ROLE, SERVER_ROLE, PostgresCluster
from bench.identity import Identity
from bench.wire import Wire
from local.parts.ports import free_port

_PROJECT = Path(__file__).resolve().parent.parent
_SERVER_PYTHON = _PROJECT / ".local" / "venvs" / "server" / "bin" / "python"

_PUBLIC_HOST = "mlflow.bench.example"
PUBLIC_URL = f"https://{_PUBLIC_HOST}"
_START_TIMEOUT_SECONDS = 180.0
# A call that reads the database and that no fast path serves.
_PROBE = "/api/2.0/mlflow/experiments/get?experiment_id=0"


class SystemFailedError(RuntimeError):
    """A server did not start or stopped serving; the message holds the end of its log."""


@dataclass
class System:
    """A server's process tree, ours or stock MLflow's."""

    name: str
    database: str
    command: Sequence[str]
    environment: Mapping[str, str]
    port: int
    directory: Path
    # May hold a bearer token: never shown.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def wire(self) -> Wire:
        """How to reach it."""
        return Wire("127.0.0.1", self.port, headers=self.headers)

    @property
    def pid(self) -> int:
        """The process id at the root of the tree."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        """The file that holds its output."""
        return self.directory / f"{self.name}.log"

    def start(self) -> float:
        """Start it and return the seconds until it answered its first call from the database.

        Raises:
            SystemFailedError: it ended, or did not answer within three minutes.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        began = perf_counter()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command),
                cwd=self.directory,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for this process, which then stops the whole group.
                start_new_session=True,
            )
        while not self.answers():
            if self._process.poll() is not None or perf_counter() - began > _START_TIMEOUT_SECONDS:
                self.stop()
                raise SystemFailedError(
                    f"{self.name} did not start; the end of {self.log}:\n{self._log_end()}"
                )
            time.sleep(0.05)
        return perf_counter() - began

    def answers(self) -> bool:
        """Whether it answers a call with 200 within two seconds."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", _PROBE, headers=dict(self.headers))
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def settle(self, *, patience: float = 45.0) -> bool:
        """Wait until it answers promptly again after load; if it does not, restart it and return False."""
        deadline = perf_counter() + patience
        while not self.answers():
            if perf_counter() > deadline:
                self.stop()
                self.start()
                return False
            time.sleep(0.2)
        return True

    def idle(self, *, patience: float = 60.0) -> float:
        """Wait until it is idle; returns the cores it still uses then."""
        deadline = perf_counter() + patience
        while True:
            before, began = resources.cpu_seconds(self.pid), perf_counter()
            time.sleep(3)
            cores = (resources.cpu_seconds(self.pid) - before) / (perf_counter() - began)
            if cores < 0.1 or perf_counter() > deadline:
                return cores

    def stop(self) -> None:
        """Stop the whole tree: SIGTERM, then SIGKILL."""
        if self._process is None:
            return
        members = resources.tree(self._process.pid)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        deadline = perf_counter() + 5
        while any(_runs(pid) for pid in members) and perf_counter() < deadline:
            time.sleep(0.05)
        self._process = None

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])


def stock(cluster: PostgresCluster, directory: Path, *, database: str = "stock") -> System:
    """MLflow as `pip install mlflow` and `mlflow server --backend-store-uri …` run it.

    uvicorn uses uvloop and httptools if they are installed. They are dependencies of this project but not of
    MLflow, so uvicorn is told to use what stock MLflow would have.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", cluster.uri(database, OWNER_ROLE)),
        *("--port", str(port)),
        *("--uvicorn-opts", "--loop asyncio --http h11"),
    ]
    return System("stock", database, command, _environment(directory), port, directory / "stock")


def ours(
    cluster: PostgresCluster,
    directory: Path,
    *,
    credentials_url: str,
    identity: Identity,
    database: str = "ours",
    fast_path: bool = True,
    reader: str | None = None,
) -> System:
    """Our server with its default settings, as the container's `serve` starts it.

    `identity` is that of its callers, since it answers nobody else; `reader` is the host of a standby.
    """
    port = free_port()
    environment = {
        **_environment(directory),
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": credentials_url,
        "MLFLOW_AWS_DATABASE_HOST": "127.0.0.1",
        "MLFLOW_AWS_DATABASE_PORT": str(cluster.postgres.port),
        "MLFLOW_AWS_DATABASE_NAME": database,
        "MLFLOW_AWS_DATABASE_USER": SERVER_ROLE,
        "MLFLOW_AWS_DATABASE_CA_FILE": cluster.ca_file,
        "MLFLOW_AWS_ARTIFACT_ROOT": "s3://bench-artifacts/",
        "MLFLOW_AWS_PUBLIC_URL": PUBLIC_URL,
        "MLFLOW_AWS_BIND": "127.0.0.1",
        "MLFLOW_AWS_PORT": str(port),
        **identity.environment,
    }
    if reader is not None:
        environment["MLFLOW_AWS_DATABASE_READER_HOST"] = reader
    if not fast_path:
        environment["MLFLOW_AWS_FAST_PATH"] = "off"
    command = [str(_SERVER_PYTHON), "-m", "mlflow_aws_server", "serve"]
    headers = {"Host": _PUBLIC_HOST, **identity.headers}
    return System("ours", database, command, environment, port, directory / "ours", headers)


@contextlib.contextmanager
def serving(*systems: System) -> Iterator[None]:
    """Stop the systems at the end, whatever happened; the caller starts them."""
    try:
        yield
    finally:
        for each in systems:
            each.stop()


def _environment(directory: Path) -> dict[str, str]:
    # Without variables that would change a server's behaviour or give it an identity.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "MLFLOW_", "PG", "UVICORN_", "PYTHON", "WEB_CONCURRENCY"))
        and not any(word in name.upper() for word in ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "KEY"))
    }
    return {**kept, "HOME": str(directory), "PATH": f"{_PROJECT / '.venv' / 'bin'}:{kept.get('PATH', '')}"}


def _runs(pid: int) -> bool:
    return bool(resources.tree(pid))
