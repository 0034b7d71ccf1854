"""Who this process really sent bytes to: evidence from below every client library."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_recordings: list[Traffic] = []
_hooked = False


@dataclass
class Traffic:
    """HTTP that left this process: body and header bytes per (host, port), and each request line."""

    sent: Counter[tuple[str, int]] = field(default_factory=Counter)
    request_lines: list[tuple[tuple[str, int], str]] = field(default_factory=list)

    def to(self, host: str, port: int) -> int:
        """Bytes sent to this address."""
        return self.sent[host, port]

    def elsewhere(self, host: str, port: int) -> int:
        """Bytes sent to any other address."""
        return self.sent.total() - self.sent[host, port]

    def requests_to(self, host: str, port: int) -> list[str]:
        """Request lines sent to this address, oldest first."""
        return [line for address, line in self.request_lines if address == (host, port)]


@contextmanager
def watch() -> Iterator[Traffic]:
    """Record while the block runs, in all threads.

    Python's audit event `http.client.send` fires for everything that urllib3 (requests, botocore) sends,
    before encryption; see the audit events table of Python's library reference.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_on_event)  # cannot be removed, so there is one, which costs nothing when idle
        _hooked = True
    traffic = Traffic()
    _recordings.append(traffic)
    try:
        yield traffic
    finally:
        _recordings.remove(traffic)


def _on_event(event: str, arguments: tuple[object, ...]) -> None:
    if event != "http.client.send" or not _recordings:
        return
    connection, data = arguments
    raw = data.encode("latin-1", "replace") if isinstance(data, str) else data
    if not isinstance(raw, bytes | bytearray | memoryview):
        return
    address = (str(getattr(connection, "host", "")), int(getattr(connection, "port", 0) or 0))
    first_line = bytes(raw[:2048]).split(b"\r\n", 1)[0]
    for traffic in _recordings:
        traffic.sent[address] += len(raw)
        if first_line.endswith((b" HTTP/1.1", b" HTTP/1.0")):
            traffic.request_lines.append((address, first_line.decode("latin-1")))
