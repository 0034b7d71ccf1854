"""Which process listens behind which address of the VPC."""

from __future__ import annotations

import json
import threading
from ipaddress import IPv4Network
from pathlib import Path

# AWS reserves the first addresses of a subnet.
_FIRST_TASK_HOST = 10


class AddressBook:
    """Which process listens behind which address of the VPC: a file that the load balancer reads.

    A Fargate task has an address in its subnet. Here every task is a process on a loopback port that the book
    names, so that two tasks can both have the container's port.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        self._write()

    def take(self, network: IPv4Network, *, ports: list[int], local_port: int) -> str:
        """Take a free address of the network, and map each of its ports to `local_port`."""
        with self._lock:
            address = next(
                str(host)
                for number, host in enumerate(network.hosts())
                if number >= _FIRST_TASK_HOST and str(host) not in self._entries
            )
            self._entries[address] = {f"{address}:{port}": f"127.0.0.1:{local_port}" for port in ports}
            self._write()
        return address

    def give_back(self, address: str) -> None:
        """Forget an address."""
        with self._lock:
            self._entries.pop(address, None)
            self._write()

    def _write(self) -> None:
        merged = {key: value for entry in self._entries.values() for key, value in entry.items()}
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(merged))
        temporary.replace(self._file)
