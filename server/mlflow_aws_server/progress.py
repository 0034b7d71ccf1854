"""Progress as JSON lines on standard output, one object per phase, for CloudWatch and for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def report(event: str, **details: object) -> None:
    """Print one line: {"event": …, details}."""
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()


@contextmanager
def phase(name: str) -> Iterator[dict[str, object]]:
    """Report a phase when it ends, with its duration in milliseconds and what the block adds to the dict."""
    details: dict[str, object] = {}
    started = time.monotonic()
    outcome = "failed"
    try:
        yield details
        outcome = "done"
    finally:
        report(
            "migrate", phase=name, outcome=outcome, ms=round((time.monotonic() - started) * 1000), **details
        )
