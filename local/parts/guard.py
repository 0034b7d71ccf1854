"""Ends the platform's processes when their supervisor is gone, however it ended.

`python -m local.parts.guard LEDGER ENDPOINTS`, with standard input a pipe that only the supervisor holds
open. ENDPOINTS is the file that says what runs; it goes with the processes.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from local.parts.processes import Ledger


def main(ledger: str, endpoints: str) -> int:
    """Wait for the end of standard input, then end every process in the ledger."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    if Ledger(Path(ledger)).end_all():
        Path(endpoints).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
