"""Callers with a role who attack: `python -m tests.attacks_on_load.attackers ORDER`.

It begins with the first line of standard input, and says at its end what was answered.

Each kind is what one request of a program in a loop may be. They do not wait when they are told to.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import uvloop

from bench.load import LoadClient
from bench.wire import Wire

API = "/api/2.0/mlflow"
_MEGABYTE = 1024 * 1024
# A bomb that is 0.5 MB as sent.
_BOMB = 512 * _MEGABYTE
_LARGE_PATHS = itertools.cycle(
    (f"{API}/experiments/search", "/api/3.0/mlflow/traces/search", "/graphql", f"{API}/runs/search")
)


class _Site:
    """What an attacker knows of the place."""

    def __init__(self, order: dict[str, Any], token: str) -> None:
        self.wire = Wire("127.0.0.1", order["port"], headers={"Authorization": f"Bearer {token}"})
        self.experiment: str = order["experiment"]
        self.run: str = order["run"]
        self.artifact: str = order["artifact"]

    def post(self, path: str, body: object) -> bytes:
        return self.wire.poster(path)(json.dumps(body).encode())

    def search(self, text: str, **more: object) -> Iterator[bytes]:
        """The same filter, asked in every place where there is one."""
        experiments = {"experiment_ids": [self.experiment], "filter": text, **more}
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": self.experiment}}
        return itertools.cycle(
            (
                self.post(f"{API}/runs/search", experiments),
                self.post("/ajax-api/2.0/mlflow/logged-models/search", experiments),
                self.post(f"{API}/experiments/search", {"filter": text, "max_results": 10, **more}),
                self.post("/api/3.0/mlflow/traces/search", {"locations": [place], "filter": text, **more}),
                self.wire.get(f"{API}/registered-models/search", filter=text),
            )
        )


def _conditions(count: int, key: str = "q") -> str:
    return " and ".join(f"tags.{key}{number}='b'" for number in range(count))


def many_conditions(site: _Site) -> Iterator[bytes]:
    return site.search(_conditions(170))


def long_filters(site: _Site) -> Iterator[bytes]:
    return site.search(_conditions(1000))


def many_orders(site: _Site) -> Iterator[bytes]:
    return site.search("", order_by=[f"params.p{number} DESC" for number in range(1300)])


def regular_expressions(site: _Site) -> Iterator[bytes]:
    return site.search(r"tags.z RLIKE '^(a+)(a+)(a+)(a+)b\1\2\3\4\1c$'")


def large_bodies(site: _Site) -> Iterator[bytes]:
    # Made once: whoever makes them anew is busy with that.
    return itertools.repeat(site.wire.poster(next(_LARGE_PATHS))(_large()))


def gzip_bombs(site: _Site) -> Iterator[bytes]:
    head = site.wire._head(
        "POST", "/v1/traces", "Content-Type: application/x-protobuf", "Content-Encoding: gzip",
        f"X-MLflow-Experiment-Id: {site.experiment}", "Content-Length: ",
    )  # fmt: skip
    return itertools.repeat(b"%b%d\r\n\r\n%b" % (head, len(_bomb()), _bomb()))


def reads(site: _Site) -> Iterator[bytes]:
    return itertools.repeat(site.wire.get(f"{API}/runs/get", run_id=site.run))


def searches(site: _Site) -> Iterator[bytes]:
    return itertools.repeat(site.post(f"{API}/runs/search", {"experiment_ids": [site.experiment]}))


def forbidden_writes(site: _Site) -> Iterator[bytes]:
    return itertools.repeat(site.post(f"{API}/experiments/create", {"name": "x"}))


def introductions(site: _Site) -> Iterator[bytes]:
    return itertools.repeat(site.wire.get("/api/2.0/mlflow-aws/whoami"))


# With how many connections each kind comes.
KINDS: dict[str, tuple[Callable[[_Site], Iterator[bytes]], int]] = {
    "many conditions": (many_conditions, 2),
    "long filters": (long_filters, 2),
    "many orders": (many_orders, 2),
    "regular expressions": (regular_expressions, 3),
    "large bodies": (large_bodies, 1),
    "gzip bombs": (gzip_bombs, 2),
    "reads": (reads, 3),
    "searches": (searches, 3),
    "forbidden writes": (forbidden_writes, 3),
    "introductions": (introductions, 3),
}
SLOW_READERS = "slow readers"


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(bytes(_BOMB), 9)


@functools.cache
def _large() -> bytes:
    return b'{"experiment_ids": ["0"], "filter": "%b"}' % (b" " * 64 * _MEGABYTE)


async def _loop(name: str, wire: Wire, requests: Iterator[bytes], seen: Counter[str]) -> None:
    client = LoadClient(wire)
    for request in requests:
        seen[f"{name} sent"] += 1
        answer = await client.call(request, timeout=60)
        seen[f"{name} {answer.status}"] += 1
        if not answer.status:
            # Not a busy loop while nobody listens.
            await asyncio.sleep(0.1)


async def _read_slowly(site: _Site, seen: Counter[str]) -> None:
    """Ask for a large file, read a few bytes, and stop."""
    request = site.wire.get(f"/get-artifact?path={site.artifact}&run_uuid={site.run}")
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.wire.port, limit=1024)
            seen[f"{SLOW_READERS} sent"] += 1
            writer.write(request)
            status = await reader.read(12)
            seen[f"{SLOW_READERS} {status[9:].decode() or 0}"] += 1
            await asyncio.sleep(8)
            writer.transport.abort()
        except OSError:
            seen[f"{SLOW_READERS} 0"] += 1
            await asyncio.sleep(0.1)


async def attack(order: dict[str, Any], seen: Counter[str]) -> None:
    """Attack with all callers of `order`: its `attackers` are tokens, each with its kinds."""
    async with asyncio.TaskGroup() as tasks:
        for token, kinds in order["attackers"]:
            site = _Site(order, token)
            for kind in kinds:
                if kind == SLOW_READERS:
                    for _ in range(2):
                        tasks.create_task(_read_slowly(site, seen))
                    continue
                make, connections = KINDS[kind]
                for _ in range(connections):
                    tasks.create_task(_loop(kind, site.wire, make(site), seen))


async def _main(order: dict[str, Any]) -> None:
    seen: Counter[str] = Counter()
    _bomb()
    print("ready", flush=True)
    sys.stdin.readline()
    attacking = asyncio.ensure_future(attack(order, seen))
    await asyncio.to_thread(sys.stdin.read)
    if attacking.done():
        attacking.result()
    attacking.cancel()
    print(json.dumps(dict(seen)), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(json.loads(sys.argv[1])))
