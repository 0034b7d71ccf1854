"""The audit log's own container: prints what the server's processes write to a named pipe, and nothing else.

Its standard output is the audit log. The server has no other way there; what it logs, whatever callers put
into it, goes to another log group. It imports next to nothing: it takes its memory from the server's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from pathlib import Path

# What an unprivileged process may ask for: some 2,000 lines, for moments when the log is behind.
_CAPACITY = 1 << 20
_CHUNK = 1 << 16
_POLL_MILLISECONDS = 500
# The server, of this group, may write. Only this user may read: whoever reads a line takes it away.
_MODE = 0o620


def print_lines(path: Path) -> None:
    """Print the pipe's lines until SIGTERM, and then those that are still in it."""
    ending = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    pipe = _open(path)
    readable = select.poll()
    readable.register(pipe, select.POLLIN)
    while True:
        if readable.poll(0 if ending else _POLL_MILLISECONDS):
            _print(os.read(pipe, _CHUNK))
        elif ending:
            return


def _open(path: Path) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
    path.chmod(_MODE)
    # For writing too: there is no end of file then when the last of the server's processes closes it.
    pipe = os.open(path, os.O_RDWR)
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _CAPACITY)
    return pipe


def _print(lines: bytes) -> None:
    while lines:
        lines = lines[os.write(1, lines) :]
