"""Chooses TCP ports on loopback: the usual ones if they are free, the same ones again if possible."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of loopback, over IPv4 or IPv6.

    Clients try `localhost` over IPv6 first: a process that listens there would get requests meant for us.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    if not socket.has_ipv6:
        return True
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(("::1", port)) != 0
    except OSError:
        return True


def free_port(host: str = LOOPBACK) -> int:
    """A TCP port that is free on `host` now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)  # noqa: S101 - AF_INET
    return port


def choose(preferred: Mapping[str, int], remembered: Mapping[str, object]) -> dict[str, int]:
    """Choose a free port for each name: the remembered one, else the preferred one, else any."""
    chosen: dict[str, int] = {}
    for name, usual in preferred.items():
        before = remembered.get(name)
        wishes = [port for port in (before, usual) if isinstance(port, int) and 1150 <= port <= 65535]
        free = (port for port in wishes if port not in chosen.values() and is_free(port))
        chosen[name] = next(free, None) or _any_free(chosen.values())
    return chosen


def _any_free(taken: Collection[int]) -> int:
    while True:
        port = free_port()
        # The stacks refuse PostgreSQL's default port.
        if port not in taken and port != 5432:
            return port
