"""A container runtime whose containers are processes: what the emulated ECS uses in place of Docker.

It has the shape of the Docker client as far as the emulator's ECS uses it. ECS itself still decides what
runs: command, environment, overrides, secrets and role come from the deployed task definition.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from local.parts.processes import Ledger

# Docker's own default, where a task definition names none.
DEFAULT_STOP_SECONDS = 30.0
_TAIL_SECONDS = 0.1
# Past containers that are kept, for their exit codes.
_REMEMBERED = 100


class ImageNotFoundError(Exception):
    """No image of this name is on this machine."""


@dataclass(frozen=True)
class Image:
    """What `docker build` would have packed: the entry point, and the environment baked into the image."""

    entrypoint: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HealthCheck:
    """A container's health check, in seconds, as its task definition states it."""

    command: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 5.0
    retries: int = 3
    start_period: float = 0.0

    @classmethod
    def of(cls, definition: Mapping[str, object] | None) -> HealthCheck | None:
        """Read `healthCheck` of a container definition; None if there is none, or it is `NONE`."""
        if not definition:
            return None
        command = [str(part) for part in _sequence(definition.get("command"))]
        if not command or command[0] == "NONE":
            return None
        if command[0] == "CMD-SHELL":
            command = ["CMD", "/bin/sh", "-c", *command[1:]]
        return cls(
            command=tuple(command[1:] if command[0] == "CMD" else command),
            interval=_number(definition.get("interval"), 30),
            timeout=_number(definition.get("timeout"), 5),
            retries=int(_number(definition.get("retries"), 3)),
            start_period=_number(definition.get("startPeriod"), 0),
        )


@dataclass(frozen=True)
class Settings:
    """What a container gets beyond its definition.

    `environment` overrides the definition's, with what differs on a laptop. `entry_point`, if the definition
    has one, stands in for the image's. `on_health` is called with
    `HEALTHY` and `UNHEALTHY`, `on_exit` once, when the process is gone.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    entry_point: tuple[str, ...] = ()
    stop_seconds: float = DEFAULT_STOP_SECONDS
    health_check: HealthCheck | None = None
    address: str = "127.0.0.1"
    on_health: Callable[[str], None] = lambda _status: None
    on_exit: Callable[[], None] = lambda: None


class Container:
    """One process, with the attributes and methods of docker-py's container."""

    def __init__(
        self,
        *,
        name: str,
        labels: Mapping[str, str],
        argv: Sequence[str],
        environment: Mapping[str, str],
        settings: Settings,
        home: Path,
        log: Path,
        ledger: Ledger,
    ) -> None:
        self.id = secrets.token_hex(32)
        self.name = name
        self.labels = dict(labels)
        self.health = "UNKNOWN"
        self.environment = dict(environment)
        self._settings = settings
        self._home = home
        self._log = log
        self._ledger = ledger
        self._ended = threading.Event()
        self._stopping = threading.Lock()
        self._exit_code: int | None = None
        self.process = self._start(argv)
        threading.Thread(target=self._watch, daemon=True, name=f"container-{name}").start()
        if settings.health_check is not None:
            threading.Thread(
                target=self._check_health,
                args=(settings.health_check,),
                daemon=True,
                name=f"health-{name}",
            ).start()

    @property
    def status(self) -> str:
        """`running` or `exited`."""
        return "exited" if self._ended.is_set() else "running"

    @property
    def attrs(self) -> dict[str, object]:
        """The part of `docker inspect` that ECS reads: the address it registers with the target group."""
        return {"NetworkSettings": {"Networks": {"task": {"IPAddress": self._settings.address}}}}

    def reload(self) -> None:
        """Nothing is cached."""

    def wait(self, timeout: float | None = None) -> dict[str, int]:
        """Wait for the end; `StatusCode` is the exit code, 128 + n for a process ended by signal n."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"container {self.name} still runs after {timeout} seconds")
        assert self._exit_code is not None  # noqa: S101 - set before the event
        return {"StatusCode": self._exit_code}

    def stop(self, timeout: float | None = None) -> None:  # noqa: ARG002 - the task definition decides
        """Send SIGTERM to the first process and, after the definition's stop timeout, SIGKILL to all."""
        with self._stopping:
            if self._ended.is_set():
                return
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            if not self._ended.wait(self._settings.stop_seconds):
                self._kill_group()
            self._ended.wait(10)

    def remove(self, *, v: bool = False, force: bool = False) -> None:  # noqa: ARG002 - docker-py's signature
        """Forget the container; with `force`, kill it first."""
        if force and not self._ended.is_set():
            self._kill_group()
            self._ended.wait(10)

    def logs(
        self,
        *,
        stream: bool = False,
        follow: bool = False,
        tail: int | str = "all",
        stdout: bool = True,  # noqa: ARG002
        stderr: bool = True,  # noqa: ARG002
    ) -> bytes | Iterator[bytes]:
        """What the process wrote, in whole lines; with `stream` and `follow`, as they come until it ends."""
        if stream:
            return self._follow() if follow else iter(self._log.read_bytes().splitlines(keepends=True))
        lines = self._log.read_bytes().splitlines(keepends=True)
        return b"".join(lines if tail == "all" else lines[-int(tail) :])

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self.environment,
                cwd=self._home,
                # A session of its own: signals to it reach nothing else, and its whole group can be killed.
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self._ledger.add(process.pid, f"task {self.name}", patience=self._settings.stop_seconds)
        return process

    def _watch(self) -> None:
        code = self.process.wait()
        # A container ends with its first process, whatever that has forked.
        self._kill_group()
        self._ledger.remove(self.process.pid)
        self._exit_code = code if code >= 0 else 128 - code
        self._ended.set()
        self._settings.on_exit()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _check_health(self, check: HealthCheck) -> None:
        started = time.monotonic()
        failures = 0
        # Docker asks more often while a container starts; the first success ends that.
        interval = min(check.interval, 5.0)
        while not self._ended.wait(interval):
            if self._passes(check):
                failures, interval = 0, check.interval
                self._report("HEALTHY")
            elif self.health == "HEALTHY" or time.monotonic() - started > check.start_period:
                failures += 1
                if failures >= check.retries:
                    self._report("UNHEALTHY")

    def _passes(self, check: HealthCheck) -> bool:
        try:
            finished = subprocess.run(
                list(check.command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self.environment,
                cwd=self._home,
                timeout=check.timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return finished.returncode == 0

    def _report(self, status: str) -> None:
        if status != self.health and not self._ended.is_set():
            self.health = status
            self._settings.on_health(status)

    def _follow(self) -> Iterator[bytes]:
        with self._log.open("rb") as file:
            partial = b""
            while True:
                ended = self._ended.is_set()
                chunk = file.read(65536)
                lines = (partial + chunk).splitlines(keepends=True)
                partial = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
                if lines:
                    yield b"".join(lines)
                if not chunk and ended:
                    if partial:
                        yield partial
                    return
                if not chunk:
                    self._ended.wait(_TAIL_SECONDS)


class Runtime:
    """Containers by id and by name, and images by name; docker-py's client as far as ECS uses it.

    `prepare` says, from a container's labels, what the laptop adds to its definition.
    """

    def __init__(
        self,
        *,
        images: Mapping[str, Image],
        directory: Path,
        logs: Path,
        ledger: Ledger,
        gateway: str = "127.0.0.1",
        prepare: Callable[[Mapping[str, str]], Settings] = lambda _labels: Settings(),
    ) -> None:
        self._images = images
        self._directory = directory
        self._logs = logs
        self._ledger = ledger
        self._prepare = prepare
        self._containers: dict[str, Container] = {}
        self._lock = threading.Lock()
        self._closed = False
        # ECS asks which network it shares with its containers by looking up its own.
        self._self = SimpleNamespace(
            attrs={"NetworkSettings": {"Networks": {"loopback": {"IPAddress": gateway}}}}
        )
        self.containers = SimpleNamespace(run=self._run, get=self._get, list=self._list)
        self.images = SimpleNamespace(
            get=self._image, pull=lambda name, **_: self._image(name), get_registry_data=self._image
        )

    def running(self) -> list[Container]:
        """The containers that have not ended."""
        with self._lock:
            return [each for each in self._containers.values() if each.status == "running"]

    def close(self) -> None:
        """Stop all tasks at the same time, and start no more.

        A task's containers stop in the order of its definition: the one on which others depend comes last.
        """
        self._closed = True
        tasks: dict[str, list[Container]] = {}
        for container in self.running():
            task = container.labels.get("com.amazonaws.ecs.task-arn", container.id)
            tasks.setdefault(task, []).append(container)

        def stop(containers: list[Container]) -> None:
            for container in containers:
                container.stop()

        stoppers = [threading.Thread(target=stop, args=(containers,)) for containers in tasks.values()]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()

    def _run(
        self,
        image: str,
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        **_docker: object,
    ) -> Container:
        if self._closed:
            raise RuntimeError("the platform is stopping: it starts no container")
        packed = self._image(image)
        labels = labels or {}
        settings = self._prepare(labels)
        name = name or f"container-{secrets.token_hex(4)}"
        home = self._directory / name
        container = Container(
            name=name,
            labels=labels,
            argv=[*(settings.entry_point or packed.entrypoint), *(command or ())],
            # Nothing from this process's environment: a container sees only what it is given.
            environment={
                "HOME": str(home),
                "TMPDIR": str(home),
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                **packed.environment,
                **(environment or {}),
                **settings.environment,
            },
            settings=settings,
            home=home,
            log=self._logs / f"{name.replace('ministack-ecs', 'task')}.log",
            ledger=self._ledger,
        )
        with self._lock:
            self._containers[container.id] = container
            for old in list(self._containers)[:-_REMEMBERED]:
                if self._containers[old].status == "exited":
                    del self._containers[old]
        return container

    def _get(self, identifier: str) -> object:
        if identifier == os.environ.get("HOSTNAME", ""):
            return self._self
        with self._lock:
            for container in self._containers.values():
                if identifier in (container.id, container.name):
                    return container
        raise LookupError(f"no such container: {identifier}")

    def _list(self, **_docker: object) -> list[Container]:
        return self.running()

    def _image(self, name: str, **_docker: object) -> Image:
        try:
            return self._images[name]
        except KeyError:
            known = ", ".join(self._images) or "none"
            raise ImageNotFoundError(f"image {name!r} is not on this machine; there is: {known}") from None


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float | str) and str(value) else default
