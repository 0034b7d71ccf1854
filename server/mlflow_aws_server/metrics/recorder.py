"""What one process has counted, by the minute and since its start."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple, TypeVar

BOUNDS = tuple(float(f"{0.001 * 1.5**power:.3g}") for power in range(28))
"""Upper ends of the classes of latency, in seconds, from 1 ms to 57 s; one more class is beyond."""

_MOST_PRINCIPALS = 1000
_OTHERS = "(others)"

Key = TypeVar("Key")


class Call(NamedTuple):
    """A series of calls. All of it is of tables and of the server's own answers, nothing a client's."""

    method: str
    route: str
    lane: str
    role: str
    status: int
    throttled: bool


@dataclass(slots=True)
class Counted:
    """What was counted in some time."""

    calls: dict[Call, int] = field(default_factory=dict)
    spent: dict[tuple[str, str, int], tuple[int, float]] = field(default_factory=dict)
    """By method, route and class of latency: how many, and their seconds in all."""
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """By verified principal; bounded, and of a minute only."""
    longest_wait: float = 0.0

    def add(self, other: Counted) -> None:
        """Take what another has counted along."""
        for call, number in other.calls.items():
            self.calls[call] = self.calls.get(call, 0) + number
        self.spent = summed(chain(self.spent.items(), other.spent.items()))
        self.counts.update(other.counts)


def summed(spent: Iterable[tuple[Key, tuple[int, float]]]) -> dict[Key, tuple[int, float]]:
    """How many and their seconds, by key."""
    sums: dict[Key, tuple[int, float]] = {}
    for key, (number, seconds) in spent:
        before = sums.get(key, (0, 0.0))
        sums[key] = before[0] + number, before[1] + seconds
    return sums


class Recorder:
    """What this process counts. But for `add`, only its event loop may call."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.past = Counted()
        """Until this minute began."""
        self.minute = Counted()
        self.waiting = 0
        """How many calls wait for a database connection or for a thread with one."""
        self._lock = threading.Lock()

    def call(self, call: Call, seconds: float) -> None:
        """Count a request that has ended, whose answer began after so many seconds."""
        minute = self.minute
        minute.calls[call] = minute.calls.get(call, 0) + 1
        key = call[0], call[1], bisect_left(BOUNDS, seconds)
        number, before = minute.spent.get(key, (0, 0.0))
        minute.spent[key] = number + 1, before + seconds

    def refused(self, principal: str) -> None:
        """Count a refusal of a verified principal."""
        refused = self.minute.refused
        known = principal in refused or len(refused) < _MOST_PRINCIPALS
        refused[principal if known else _OTHERS] += 1

    def add(self, name: str) -> None:
        """Count one of `names.TABLE`; any thread may."""
        with self._lock:
            self.minute.counts[name] += 1

    async def wait(self, turn: Awaitable[None]) -> None:
        """Wait for a turn to use the database, and note how long it took."""
        began = time.monotonic()
        self.waiting += 1
        try:
            await turn
        finally:
            self.waiting -= 1
            self.minute.longest_wait = max(self.minute.longest_wait, time.monotonic() - began)

    def end_minute(self) -> Counted:
        """What this minute has counted; the next one begins."""
        with self._lock:
            ended, self.minute = self.minute, Counted()
        self.past.add(ended)
        return ended

    def total(self) -> Counted:
        """What was counted since the process started."""
        total = Counted()
        total.add(self.past)
        total.add(self.minute)
        return total


METRICS = Recorder()
