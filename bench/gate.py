"""The cost of the gate: the same request with and without it, on one event loop, without a network.

`python -m bench.gate` prints medians in microseconds and, with --json, writes them to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow_aws_server.identity import AuditLog, Gate, IdentitySettings, RoleMap, to_standard_output

from local.parts.certificates import ServerCertificate
from local.parts.token_issuer import TokenIssuer

_AUDIENCE = "https://mlflow.example.com"
_ROLE = "arn:aws:iam::123456789012:role/bench"
_API = "/api/2.0/mlflow"
_BATCH = json.dumps(
    {
        "run_id": "0123456789abcdef0123456789abcdef",
        "metrics": [{"key": "loss", "value": 0.25, "timestamp": 1700000000000, "step": 7}],
        "params": [],
        "tags": [],
    }
).encode()
_LIMIT_MICROSECONDS = 300.0

App = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Medians of one kind of request, in microseconds."""

    name: str
    without: float
    with_gate: float

    @property
    def added(self) -> float:
        """What the gate adds."""
        return self.with_gate - self.without


async def measure(*, rounds: int = 2000, deliver: Callable[[bytes], Any] = to_standard_output) -> list[Cost]:
    """Measure each kind of request `rounds` times."""
    nowhere = ServerCertificate(Path(os.devnull), Path(os.devnull))
    issuer = TokenIssuer(nowhere, host="sts.example.com", port=443)
    settings = IdentitySettings(
        token_issuers={issuer.url: "arn:aws:iam::123456789012"},
        token_audience=_AUDIENCE,
        public_url=_AUDIENCE,
        roles=RoleMap.parse(
            json.dumps({"contributor": {"permissions": ["read", "write"], "iam_roles": [_ROLE]}})
        ),
    )
    published = {issuer.key.key_id: issuer.key.private.public_key()}
    gate = Gate(_behind, settings, audit=AuditLog(deliver), fetch=lambda _: published)
    token = issuer.token(subject=_ROLE, audience=_AUDIENCE, seconds=3600)
    new = iter([issuer.token(subject=_ROLE, audience=_AUDIENCE) for _ in range(200)])
    read = ("GET", f"{_API}/runs/get", b"")
    write = ("POST", f"{_API}/runs/log-batch", _BATCH)
    return [
        await _compare("read", gate, read, lambda: token, rounds),
        await _compare("write, audited", gate, write, lambda: token, rounds),
        await _compare("read, token never seen before", gate, read, lambda: next(new), 200),
    ]


async def quietly(*, rounds: int) -> list[Cost]:
    """Measure with audit lines formatted as in the server, and written to /dev/null."""
    with open(os.devnull, "wb", buffering=0) as nowhere:  # noqa: PTH123 - a device, not a file of ours
        return await measure(rounds=rounds, deliver=nowhere.write)


async def _compare(
    name: str, gate: App, request: tuple[str, str, bytes], token: Callable[[], str], rounds: int
) -> Cost:
    scopes = [_scope(request, token()) for _ in range(rounds)]
    without = [await _time(_behind, scope, request[2]) for scope in scopes]
    with_gate = [await _time(gate, scope, request[2]) for scope in scopes]
    return Cost(name=name, without=statistics.median(without), with_gate=statistics.median(with_gate))


def _scope(request: tuple[str, str, bytes], token: str) -> dict[str, Any]:
    method, path, body = request
    headers = [
        (b"host", b"mlflow.example.com"),
        (b"x-forwarded-for", b"203.0.113.7"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-port", b"443"),
        (b"x-amzn-trace-id", b"Root=1-67891233-abcdef012345678912345678"),
        (b"user-agent", f"mlflow-python-client/{version('mlflow')}".encode()),
        (b"accept-encoding", b"gzip, deflate"),
        (b"accept", b"*/*"),
        (b"authorization", b"Bearer " + token.encode()),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("10.0.0.1", 40000),
        "server": ("10.0.0.2", 5000),
        "state": {},
    }


async def _behind(_: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def _time(app: App, scope: dict[str, Any], body: bytes) -> float:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"the gate answered {message['status']}")

    started = time.perf_counter_ns()
    await app(scope, receive, send)
    return (time.perf_counter_ns() - started) / 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit with 1 if the gate adds more than 0.3 ms to a request whose token is known."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000, help="requests of each kind (default: 2000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    chosen = parser.parse_args(arguments)
    costs = asyncio.run(quietly(rounds=chosen.rounds))
    print(f"{'request':32} {'without':>9} {'with':>9} {'added':>9}   (median, microseconds)")
    for cost in costs:
        print(f"{cost.name:32} {cost.without:9.1f} {cost.with_gate:9.1f} {cost.added:9.1f}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([{**asdict(c), "added": c.added} for c in costs], indent=2) + "\n")
    return 0 if all(cost.added <= _LIMIT_MICROSECONDS for cost in costs[:2]) else 1


if __name__ == "__main__":
    sys.exit(main())
