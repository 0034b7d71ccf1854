"""One stretch of load on one system, and several of them made into a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import uvloop

from bench import resources
from bench.corpus import Corpus
from bench.floor import FloorDatabase, bare_loop, bare_write
from bench.load import LoadResult, NextRequest, closed_loop
from bench.records import BenchRecord, middle, percentile_ms
from bench.scenarios import Scenario
from bench.systems import System


@dataclass(frozen=True)
class Stretch:
    """A result of load, and the cores that the server and PostgreSQL used meanwhile."""

    outcome: LoadResult
    server_cores: float
    database_cores: float

    @property
    def rps(self) -> float:
        """Successful calls per second."""
        return self.outcome.succeeded / self.outcome.seconds if self.outcome.seconds else 0.0


@dataclass
class Load:
    """Puts load on systems, and remembers how far each scenario has come on each."""

    corpus: Corpus
    floor: FloorDatabase
    database_pid: int
    patience: float
    _made: dict[tuple[str, str], NextRequest] = field(default_factory=dict)
    _numbers: Counter[tuple[str, str]] = field(default_factory=Counter)

    def begin_at(self, system: str, scenario: str, number: int) -> None:
        """Number the calls of a scenario from `number` on, unless it is further already."""
        key = (system, scenario)
        self._numbers[key] = max(self._numbers[key], number)

    def on_server(self, system: System, scenario: Scenario, *, concurrency: int, seconds: float) -> Stretch:
        """Load a server."""
        key = (system.name, scenario.name)
        if key not in self._made:
            self._made[key] = scenario.requests(system.wire, self.corpus)
        meter = _Meter(system.pid, self.database_pid)
        try:
            outcome, self._numbers[key] = uvloop.run(
                closed_loop(
                    system.wire,
                    self._made[key],
                    first=self._numbers[key],
                    concurrency=concurrency,
                    seconds=seconds,
                    patience=self.patience,
                )
            )
        except OSError as error:
            outcome = LoadResult(
                seconds=seconds, statuses=Counter({f"not connected: {error.strerror}": concurrency})
            )
        return meter.stretch(outcome)

    def on_floor(self, scenario: Scenario, *, concurrency: int, seconds: float) -> Stretch:
        """Write the same with bare SQL, over as many connections as there are callers."""
        key = ("floor", scenario.name)
        meter = _Meter(None, self.database_pid)
        outcome, self._numbers[key] = uvloop.run(
            bare_loop(
                self.floor,
                bare_write(scenario.name, self.corpus),
                first=self._numbers[key],
                connections=concurrency,
                seconds=seconds,
            )
        )
        return meter.stretch(outcome)


class _Meter:
    def __init__(self, server: int | None, database: int) -> None:
        self._server, self._database = server, database
        self._before = self._read()
        self._began = perf_counter()

    def _read(self) -> tuple[float, float]:
        server = resources.cpu_seconds(self._server) if self._server is not None else 0.0
        return server, resources.cpu_seconds(self._database)

    def stretch(self, outcome: LoadResult) -> Stretch:
        seconds = perf_counter() - self._began
        after = self._read()
        return Stretch(
            outcome, (after[0] - self._before[0]) / seconds, (after[1] - self._before[1]) / seconds
        )


def as_record(
    scenario: Scenario,
    *,
    concurrency: int,
    system: str,
    stretches: Sequence[Stretch],
    more: Mapping[str, object],
) -> BenchRecord:
    """The median rate of the rounds, and percentiles over the latencies of all of them."""
    latencies = [each for stretch in stretches for each in stretch.outcome.latencies]
    statuses = sum((stretch.outcome.statuses for stretch in stretches), Counter[str]())
    elapsed = sum(stretch.outcome.seconds for stretch in stretches)
    generator = sum(stretch.outcome.generator_cpu_seconds for stretch in stretches)
    rps = middle(stretch.rps for stretch in stretches)
    return BenchRecord(
        scenario=scenario.name,
        concurrency=concurrency,
        system=system,
        rps=rps,
        p50_ms=percentile_ms(latencies, 0.5),
        p99_ms=percentile_ms(latencies, 0.99),
        errors=sum(stretch.outcome.errors for stretch in stretches),
        more={
            "metrics_per_second": (rps or 0.0) * scenario.rows,
            "calls": len(latencies),
            "statuses": dict(statuses),
            "rps_of_rounds": [stretch.rps for stretch in stretches],
            "server_cores": middle(stretch.server_cores for stretch in stretches),
            "database_cores": middle(stretch.database_cores for stretch in stretches),
            "generator_cores": generator / elapsed if elapsed else None,
            **more,
        },
    )
