"""Ends the platform's processes when the one that supervises them is gone, however it went.

`python -m local.guard STATE_DIRECTORY`, with standard input a pipe that only the supervisor holds open.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from local.state import State


def main(arguments: list[str]) -> int:
    """Wait for the end of standard input, then end every process in the ledger."""
    state = State(Path(arguments[0]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    if state.ledger.end_all():
        state.endpoints.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
