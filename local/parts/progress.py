"""Says what is being done and how long it took, one line a step."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Progress:
    """Steps that may run side by side; each gets its line, and its number, when it is done."""

    def __init__(self, steps: int, say: Callable[[str], None]) -> None:
        self._steps = steps
        self._say = say
        self._done = 0
        self._lock = threading.Lock()
        self._started = time.monotonic()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Time a step. What the caller is handed adds a remark to the step's line."""
        remarks: list[str] = []
        started = time.monotonic()
        yield remarks.append
        with self._lock:
            self._done += 1
            remark = f" ({'; '.join(remarks)})" if remarks else ""
            number = f"[{self._done}/{self._steps}]"
            self._say(f"{number:>7} {title + remark:<88} {time.monotonic() - started:5.1f} s")

    def note(self, line: str) -> None:
        """Say something that is no step."""
        with self._lock:
            self._say(line)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started
