"""Clients that put a server under pressure: some send a byte per second, some send megabytes.

A few ordinary callers work beside them; what they see, and the server's memory, is the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from bench.corpus import Corpus
from bench.load import LoadClient, LoadResult, closed_loop
from bench.records import BenchRecord, percentile_ms
from bench.scenarios import API, get_run, log_metric
from bench.wire import Wire

PROBE_CALLERS = 4
_MEGABYTE = 1_000_000


@dataclass
class Pressure:
    """The result. Memory is the PSS of the server's process tree, in bytes: before, peak and after."""

    calm: LoadResult
    probe: LoadResult
    memory_before: int
    memory_peak: int
    memory_after: int
    seen: Counter[str] = field(default_factory=Counter)


Attack = Callable[[float], Coroutine[Any, Any, Counter[str]]]


async def under(
    wire: Wire, corpus: Corpus, attack: Attack, *, memory: Callable[[], int], seconds: float
) -> Pressure:
    """Let ordinary callers work alone and then, for `seconds`, beside `attack`."""
    reads, writes = get_run(wire, corpus), log_metric(wire, corpus)

    def both(number: int) -> bytes:
        return reads(number) if number % 2 else writes(number)

    before = memory()
    # Above all numbers that the scenarios have used, so that every write is a new row here too.
    calm, number = await closed_loop(
        wire, both, first=10_000_000, concurrency=PROBE_CALLERS, seconds=max(2.0, seconds / 5)
    )
    peak = before
    attacking = asyncio.ensure_future(attack(seconds))

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, await asyncio.to_thread(memory))
            await asyncio.sleep(1)

    watching = asyncio.ensure_future(watch())
    try:
        # The attackers connect first.
        await asyncio.sleep(min(1.0, seconds / 4))
        probe, _ = await closed_loop(
            wire, both, first=number, concurrency=PROBE_CALLERS, seconds=seconds * 0.7, patience=20
        )
        seen = await attacking
    finally:
        watching.cancel()
        attacking.cancel()
        await asyncio.gather(watching, attacking, return_exceptions=True)
    await asyncio.sleep(1)
    return Pressure(calm, probe, before, peak, memory(), seen)


def slow_clients(wire: Wire, corpus: Corpus, *, clients: int) -> Attack:
    """`clients` connections that each announce a log-batch and send one byte of it per second."""
    body = json.dumps(
        {"run_id": corpus.runs[0], "metrics": [], "params": [], "tags": [], "pad": "x" * 1000}
    ).encode()
    head = wire.post_in_part(f"{API}/runs/log-batch", len(body))

    async def one(seconds: float, seen: Counter[str]) -> None:
        try:
            reader, writer = await asyncio.open_connection(wire.host, wire.port, ssl=wire.tls)
        except OSError:
            seen["refused"] += 1
            return
        try:
            writer.write(head)
            ends = perf_counter() + seconds
            sent = 0
            while perf_counter() < ends:
                writer.write(body[sent : sent + 1])
                sent += 1
                with contextlib.suppress(TimeoutError):
                    # Whatever the server sends before the body is complete ends the attempt.
                    status = await asyncio.wait_for(reader.read(64), timeout=1)
                    seen["closed by the server" if not status else f"answered {status[9:12].decode()}"] += 1
                    return
            seen["still connected"] += 1
        except OSError:
            seen["closed by the server"] += 1
        finally:
            writer.close()

    async def attack(seconds: float) -> Counter[str]:
        seen: Counter[str] = Counter()
        await asyncio.gather(*(one(seconds, seen) for _ in range(clients)))
        return seen

    return attack


def large_bodies(wire: Wire, corpus: Corpus, *, clients: int, size: int = 2_000_000) -> Attack:
    """`clients` connections that send log-batches of `size` bytes, one after the other.

    MLflow refuses a log-batch of more than 1 MB, so a refusal is right; what counts is a response.
    """
    tags = [{"key": f"note_{number}", "value": "x" * 4000} for number in range(size // 4040)]
    request = wire.poster(f"{API}/runs/log-batch")(
        json.dumps({"run_id": corpus.runs[0], "tags": tags}).encode()
    )

    async def one(ends: float, seen: Counter[str]) -> None:
        client = LoadClient(wire)
        try:
            while perf_counter() < ends:
                response = await client.call(request, timeout=20)
                seen[f"answered {response.status}" if response.status else "no response"] += 1
                if not response.status:
                    await asyncio.sleep(0.2)
        finally:
            client.close()

    async def attack(seconds: float) -> Counter[str]:
        seen: Counter[str] = Counter()
        ends = perf_counter() + seconds
        await asyncio.gather(*(one(ends, seen) for _ in range(clients)))
        return seen

    return attack


def as_record(name: str, clients: int, system: str, seen: Pressure, *, restarted: bool) -> BenchRecord:
    """The record of it; rate and latencies are the ordinary callers'."""
    return BenchRecord(
        scenario=name,
        concurrency=clients,
        system=system,
        rps=seen.probe.succeeded / seen.probe.seconds,
        p50_ms=percentile_ms(seen.probe.latencies, 0.5),
        p99_ms=percentile_ms(seen.probe.latencies, 0.99),
        errors=seen.probe.errors,
        more={
            "calm_rps": seen.calm.succeeded / seen.calm.seconds,
            "calm_p99_ms": percentile_ms(seen.calm.latencies, 0.99),
            "pss_mb_before": seen.memory_before / _MEGABYTE,
            "pss_mb_peak": seen.memory_peak / _MEGABYTE,
            "pss_mb_after": seen.memory_after / _MEGABYTE,
            "clients_saw": dict(seen.seen),
            "restarted": restarted,
        },
    )
