"""The load balancer's process: TLS in front of the service's tasks, by the deployed listener's rules.

`python -m local.edge --help` names its arguments. The snapshot is what `local.edge.snapshot` writes; a new
one is applied as it appears. It holds the secrets of app clients, as a load balancer does; no AWS credential
is needed here. What it counts is appended to another file, which the emulator's CloudWatch reads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from local.edge.balancer import LONGEST_LINE, Balancer, Configuration
from local.edge.listener import UnsupportedError
from local.edge.meter import NAMESPACE

_RELOAD_SECONDS = 0.3
_DRAIN_SECONDS = 5.0
_METER_SECONDS = 5.0


async def serve(
    *,
    snapshot: Path,
    metrics: Path,
    certificate: Path,
    key: Path,
    port: int,
    authority: Path,
    user_pools: str,
    host: str = "127.0.0.1",
) -> None:
    """Listen until SIGTERM or SIGINT, applying each new snapshot."""
    text = snapshot.read_text()
    configuration = Configuration.of(json.loads(text))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    trust = ssl.create_default_context(cafile=authority)
    async with Balancer(configuration, port=port, trust=trust, user_pools=user_pools) as balancer:
        work = [
            asyncio.create_task(each)
            for each in (balancer.check_targets(), publish(balancer, metrics, every=_METER_SECONDS))
        ]
        runner = web.ServerRunner(
            web.Server(
                balancer.handle,
                keepalive_timeout=configuration.idle_seconds,
                max_line_size=LONGEST_LINE,
                max_field_size=LONGEST_LINE,
                access_log=None,
            ),
            shutdown_timeout=_DRAIN_SECONDS,
        )
        await runner.setup()
        context = tls_context(certificate=certificate, key=key, minimum=configuration.tls)
        await web.TCPSite(runner, host, port, ssl_context=context, backlog=512).start()
        print(f"listening on {host}:{port}, TLS {configuration.tls} or newer", flush=True)
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), _RELOAD_SECONDS)
            except TimeoutError:
                new = snapshot.read_text() if snapshot.exists() else text
                if new != text:
                    text = new
                    balancer.configuration = Configuration.of(json.loads(text), balancer.configuration)
        for each in work:
            each.cancel()
        await runner.cleanup()


async def publish(balancer: Balancer, file: Path, *, every: float) -> None:
    """Append what was counted as a line of PutMetricData's parameters, until cancelled."""
    while True:
        await asyncio.sleep(every)
        configuration = balancer.configuration
        data = balancer.meter.taken(configuration.load_balancer, configuration.groups, time.time())
        with file.open("a") as opened:
            opened.write(json.dumps({"Namespace": NAMESPACE, "MetricData": data}) + "\n")


def tls_context(*, certificate: Path, key: Path, minimum: str) -> ssl.SSLContext:
    """A server's TLS settings that admit nothing below `minimum`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if minimum == "1.3" else ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def main(argv: Sequence[str] | None = None) -> int:
    """Run the balancer; 1 if the listener asks for what is not supported or the port is taken."""
    arguments = argparse.ArgumentParser(prog="python -m local.edge", description=__doc__)
    for name in ("snapshot", "metrics", "certificate", "key", "authority"):
        arguments.add_argument(f"--{name}", type=Path, required=True)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--user-pools", required=True, help="where user pools and their page are")
    chosen = arguments.parse_args(argv)
    try:
        import uvloop

        runner: Any = uvloop.run
    except ImportError:
        runner = asyncio.run
    try:
        runner(serve(**vars(chosen)))
    except (UnsupportedError, OSError) as error:
        print(f"load balancer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
