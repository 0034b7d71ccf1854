"""Requests that schemathesis makes up, sent to a real server by every role, and what must hold."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any
from urllib.parse import unquote

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from mlflow_aws_server.identity.access import Route, route_of
from mlflow_aws_server.identity.errors import NoSuchRouteError
from schemathesis.generation import GenerationMode

from bench import resources
from stacks.roles import BY_NAME
from tests.fuzz.document import OTLP, document
from tests.fuzz.explained import explanation
from tests.fuzz.values import RIGHT
from tests.fuzz.world import World
from tests.roles import permissions
from tests.server.conftest import PUBLIC_HOST, Identity, Process

MEMORY = 1024 * 1024 * 1024
"""What dev's task has, in bytes."""

_SECONDS_BETWEEN_LOOKS = 0.25
_PATIENCE_SECONDS = 120
_INTERNAL = re.compile(
    r"Traceback \(most recent|psycopg2|asyncpg|sqlalchemy|\[SQL:|\[parameters:|site-packages", re.I
)
_ENDS_OBJECTS = re.compile(r"delete|rename|restore|transition|update|items/remove")
_REFUSED = (401, 403, 414, 431)
# A name that exists is none for these.
_CREATES = re.compile(r"/(registered-models|experiments|datasets|label-schemas|review-queues)/create")
# Who asks: a role of our table or nobody, and whether as a person.
_CALLERS: tuple[tuple[str | None, bool], ...] = (
    *((role, False) for role in BY_NAME),
    *((role, True) for role in BY_NAME),
    (None, False),
)
# Of how many requests somebody asks who may not, and how many name what does not exist.
_FORBIDDEN = 0.2
_ASTRAY = 0.4


@dataclass
class Fuzz:
    """The requests so far, and what was wrong with their answers."""

    world: World
    identity: Identity
    port: int
    process: Process
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Of each "METHOD path": how many answers of each class of statuses."""
    explained: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    peak: int = 0
    _sent: int = 0

    def round(self, number: int, *, examples: int, until: float = float("inf"), only: str = "") -> None:
        """Send `examples` requests of each mode to each route, in both its spellings, made from this seed."""
        self.seeds.append(number)
        for paths in _twins().values():
            if time.monotonic() > until:
                return
            operation = paths[0]
            if re.search(only, _name(operation)):
                for mode in GenerationMode:
                    self._fuzz(paths, mode, number=number, examples=examples)

    def _fuzz(self, paths: list[Any], mode: GenerationMode, *, number: int, examples: int) -> None:
        operation = paths[0]
        cases: list[Any] = []
        make = _maker(_name(operation), mode)
        own = zlib.crc32(f"{number} {mode} {_name(operation)}".encode())
        collect = seed(own)(
            settings(
                max_examples=examples,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )(given(case=make)(lambda case: cases.append(case)))
        )
        # A route without any parameter has no wrong ones.
        with contextlib.suppress(Unsatisfiable):
            collect()
        # Of a route without any parameter there is one case, which both spellings get.
        for index in range(max(len(cases), len(paths)) if cases else 0):
            self._send(cases[index % len(cases)], paths[index % len(paths)], own + index)

    def _send(self, case: Any, operation: Any, number: int) -> None:
        route = _name(operation)
        chance = Random(number)
        role, as_person = _caller(_permission(operation), chance)
        astray = chance.random() < _ASTRAY
        for part in ("path_parameters", "query", "headers", "body"):
            if isinstance(value := getattr(case, part), str | dict | list):
                if not astray and (part == "path_parameters" or not _CREATES.search(route)):
                    value = _leading_somewhere(value)
                setattr(case, part, self.world.real(value, of=route))
        try:
            made = case.as_transport_kwargs(f"http://127.0.0.1:{self.port}")
            made["url"] = made["url"].replace(_beginning(case.path), _beginning(operation.path), 1)
            made["headers"] = {**made["headers"], "Host": PUBLIC_HOST, **self._credential(role, as_person)}
            if route.endswith(OTLP) and "$otlp" in str(case.body):
                made["data"] = self.world.otlp(number)
            if route.endswith(OTLP):
                made["headers"]["Content-Type"] = "application/x-protobuf"
                if number % 2:
                    made["headers"]["Content-Encoding"] = "gzip"
            made.pop("cookies", None)
            request = requests.Request(**made).prepare()
        except (ValueError, UnicodeError):
            # HTTP has no way to say it.
            return
        self._sent += 1
        try:
            answer = _session().send(request, timeout=_PATIENCE_SECONDS, allow_redirects=False)
        except requests.RequestException as error:
            self._find(route, request, role, f"no answer: {error!r}")
            return
        self._judge(route, request, role, answer)

    def _judge(self, route: str, request: Any, role: str | None, answer: requests.Response) -> None:
        status = answer.status_code
        self.counts[route][f"{status // 100}xx"] += 1
        if status >= 500 or (status >= 400 and not _has_mlflows_shape(route, answer)):
            evidence = self._evidence(answer)
            name = explanation(route, evidence)
            if name is None:
                self._find(route, request, role, evidence)
            else:
                self.explained[f"{name}: {route}"] += 1
        if status >= 400 and _INTERNAL.search(answer.text):
            self._find(route, request, role, f"{status} tells internals: {answer.text[:500]!r}")
        meant = _route(request)
        if meant is None:
            # At most a redirect to the path with a slash at its end, or without one.
            if status < 300:
                self._find(route, request, role, f"{status} on a route that nobody has")
        elif meant.permission is None or role is None or meant.permission.value not in permissions(role):
            # Nobody learns from an error of MLflow's what they may not read.
            if status not in _REFUSED and "plain form" not in answer.text:
                self._find(route, request, role, f"{status}, for {role} who may not: {answer.text[:200]!r}")
        elif status < 400 and meant.changes:
            self.world.changes[f"{meant.method} {meant.path}"] += 1
            if _ENDS_OBJECTS.search(meant.path) or meant.method == "DELETE":
                self.world.build()

    def _evidence(self, answer: requests.Response) -> str:
        """The answer, and for a failure the log's last line about one."""
        answered = f"{answer.status_code} {answer.text[:300]!r}"
        if answer.status_code < 500:
            return answered
        logged = ""
        for line in reversed(self.process.output().splitlines()[-20:]):
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("level") in ("ERROR", "CRITICAL"):
                    logged = str(record.get("exception") or record["message"])
                    break
        return f"{answered} …{logged[-700:]}"

    def _find(self, route: str, request: Any, role: str | None, what: str) -> None:
        body = request.body if request.body is None else request.body[:600]
        self.findings.append(
            f"{route} by {role}: {what}\n    {request.method} {request.url[:600]}\n    {body!r}"
        )

    def _credential(self, role: str | None, as_person: bool) -> dict[str, str]:
        if role is None:
            return {}
        if as_person:
            return {"x-amzn-oidc-accesstoken": self.identity.user_token(role)}
        return {"Authorization": f"Bearer {self.identity.token(role)}"}

    def end(self) -> None:
        """What must hold for all of it: the server never ended, grew or wrote a line that is not ours."""
        if self.process.poll() is not None:
            self.findings.append(f"the server ended with {self.process.poll()}")
        if self.peak >= MEMORY:
            self.findings.append(f"the server took {self.peak // 2**20} MiB")
        expected = self.world.changes
        # A line is written after its answer.
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (
            self.process.output().count('"audit":"changed"') < expected.total()
            and time.monotonic() < deadline
        ):
            time.sleep(0.1)
        changed: Counter[str] = Counter()
        own = []
        for line in self.process.output().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                self.findings.append(f"a line of the log is not JSON: {line[:300]!r}")
                continue
            if record.get("audit") == "changed":
                changed[f"{record['method']} {record['route']}"] += 1
            if _is_of_our_code(record):
                own.append(line[:1500])
        self.findings += [f"our code failed: {line}" for line in sorted(set(own))]
        if changed != expected:
            self.findings.append(f"changes without a line in the audit log: {expected - changed}")
            self.findings.append(f"lines in the audit log without a change: {changed - expected}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at the memory of the server's processes meanwhile."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_SECONDS_BETWEEN_LOOKS):
                self.peak = max(self.peak, resources.memory(self.process.pid)[0])

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


@cache
def _operations() -> dict[str, Any]:
    schema = schemathesis.openapi.from_dict(document())
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    return {_name(operation): operation for operation in operations}


@cache
def _maker(name: str, mode: GenerationMode) -> Any:
    return _operations()[name].as_strategy(generation_mode=mode)


@cache
def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def _twins() -> Mapping[str, list[Any]]:
    """The operations, with /api and /ajax-api together: what leads to one leads to the other."""
    found: dict[str, list[Any]] = defaultdict(list)
    for name, operation in _operations().items():
        found[name.replace("/ajax-api/", "/api/")].append(operation)
    return found


def _leading_somewhere(value: Any) -> Any:
    if isinstance(value, list):
        return [_leading_somewhere(each) for each in value]
    if isinstance(value, dict):
        return {
            key: (RIGHT[key] if not isinstance(each, list) else [RIGHT[key]])
            if key in RIGHT
            else _leading_somewhere(each)
            for key, each in value.items()
        }
    return value


def _permission(operation: Any) -> str | None:
    found: str | None = operation.definition.raw["x-permission"]
    return found


def _caller(permission: str | None, chance: Random) -> tuple[str | None, bool]:
    may = [each for each in _CALLERS if each[0] is not None and permission in permissions(each[0])]
    may_not = [each for each in _CALLERS if each not in may]
    return chance.choice(may if may and chance.random() > _FORBIDDEN else may_not)


def _name(operation: Any) -> str:
    return str(operation.definition.raw["operationId"])


def _beginning(path: str) -> str:
    return path.partition("/mlflow")[0]


def _route(request: Any) -> Route | None:
    path = unquote(request.path_url.partition("?")[0])
    try:
        return route_of(request.method, path)
    except NoSuchRouteError:
        return None


def _has_mlflows_shape(route: str, answer: requests.Response) -> bool:
    try:
        said = answer.json()
    except ValueError:
        return not re.search(r"/(api|ajax-api|v1)/", route)
    if route.endswith("/graphql") and isinstance(said, dict) and "errors" in said:
        return True
    return (
        isinstance(said, dict)
        and isinstance(said.get("error_code"), str)
        and isinstance(said.get("message"), str)
    )


def _is_of_our_code(record: Mapping[str, Any]) -> bool:
    frames = re.findall(r'File "([^"]+)"', str(record.get("exception", "")))
    return bool(frames) and "mlflow_aws_server" in frames[-1]
