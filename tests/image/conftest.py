"""The image, built once from the Dockerfile, and a server that runs in it as its task does."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local.parts.ports import free_port
from tests.conftest import RdsLike
from tests.image import engine as engines
from tests.image.engine import Engine
from tests.server import conftest as server
from tests.server.conftest import PROJECT, Deployment, Identity, deployment, request

# The fixture: the two issuers that the server trusts.
identity = server.identity

NAME = "mlflow-on-aws:test"
# config/dev.toml's task, and what stacks/service/server_task.py gives every container.
MEMORY_MIB = 1024
TASK = (
    "--init",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    f"--memory={MEMORY_MIB}m",
    f"--memory-swap={MEMORY_MIB}m",
    "--network=host",
)
_OF_THE_HOST = ("PATH", "HOME", "LANG", "TMPDIR")


@dataclass(frozen=True)
class Built:
    """The image and how long it took."""

    engine: Engine
    seconds: float

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(self.engine.docker("image", "inspect", NAME).stdout)
        return dict(found)


@dataclass(frozen=True)
class Running:
    """A container that serves."""

    engine: Engine
    container: str
    port: int
    deployment: Deployment
    seconds: float

    def execute(self, *command: str) -> int:
        return self.engine.docker("exec", self.container, *command, check=False).returncode

    def state(self) -> dict[str, Any]:
        (found,) = json.loads(self.engine.docker("inspect", self.container).stdout)
        return dict(found["State"])


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if (why := engines.obstacle()) is not None:
        pytest.skip(f"cannot run here: {why}")
    directory = PROJECT / ".local" / "image"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        try:
            started = stack.enter_context(engines.running(directory))
        except OSError as error:
            pytest.skip(f"cannot run here: {error}")
        yield started


@pytest.fixture(scope="session")
def image(engine: Engine) -> Built:
    base = engines.make_base(engine, PROJECT / ".local" / "image")
    began = time.monotonic()
    arguments = ("--network=host", f"--build-arg=BASE_IMAGE={base}", f"--tag={NAME}")
    engine.docker("build", *arguments, str(PROJECT / "server"))
    return Built(engine, time.monotonic() - began)


def options(made: Deployment, directory: Path) -> list[str]:
    """The task's environment, and files of the host in place of public authorities."""
    environ = {name: value for name, value in made.environ.items() if name not in _OF_THE_HOST}
    mounts = []
    for name in ("MLFLOW_AWS_DATABASE_CA_FILE", "SSL_CERT_FILE"):
        copy = directory / f"{name}.pem"
        shutil.copyfile(environ[name], copy)
        copy.chmod(0o644)
        environ[name] = f"/etc/ssl/{copy.name}"
        mounts.append(f"--volume={copy}:{environ[name]}:ro")
    file = directory / "environment"
    file.write_text("".join(f"{name}={value}\n" for name, value in environ.items()))
    return [f"--env-file={file}", *mounts]


@pytest.fixture(scope="session")
def task(
    image: Built, rds: RdsLike, identity: Identity, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """The container `migrate` on an empty database, then the container `serve`."""
    with deployment(rds, identity) as made:
        port = free_port()
        made.environ["MLFLOW_AWS_PORT"] = str(port)
        given = options(made, tmp_path_factory.mktemp("task"))
        image.engine.docker("run", "--rm", *TASK, *given, NAME, "migrate")
        began = time.monotonic()
        container = image.engine.docker("run", "--detach", *TASK, *given, NAME).stdout.strip()
        try:
            _wait(image.engine, container, port)
            yield Running(image.engine, container, port, made, time.monotonic() - began)
        finally:
            image.engine.docker("rm", "--force", "--volumes", container)


def _wait(engine: Engine, container: str, port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if request(port, "GET", "/ready", role=None)[0] == 200:
                return
        time.sleep(0.1)
    log = engine.docker("logs", container)
    pytest.fail(f"the container is not ready after 120 s:\n{log.stdout}{log.stderr}")
