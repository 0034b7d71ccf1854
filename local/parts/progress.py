"""Reports steps and how long they took, one line each."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Progress:
    """Steps that may run at the same time; each gets its line and its number when it is done."""

    def __init__(self, steps: int, say: Callable[[str], None]) -> None:
        self._steps = steps
        self._say = say
        self._done = 0
        self._lock = threading.Lock()
        self._started = time.monotonic()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Time a step; yields a function that adds a remark to its line."""
        remarks: list[str] = []
        started = time.monotonic()
        yield remarks.append
        with self._lock:
            self._done += 1
            remark = f" ({'; '.join(remarks)})" if remarks else ""
            number = f"[{self._done}/{self._steps}]"
            self._say(f"{number:>7} {title + remark:<88} {time.monotonic() - started:5.1f} s")

    def note(self, line: str) -> None:
        """Print a line that is not a step."""
        with self._lock:
            self._say(line)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started
