"""What the platform tells its emulator, in a JSON file that holds no secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class EmulatorSettings:
    """Where it listens, what it may run, and where it writes.

    The root credentials are not here: they come in the environment.
    """

    port: int
    region: str
    account_id: str
    state: str
    logs: str
    ledger: str
    address_book: str
    # Where the load balancer appends what it counts.
    balancer_metrics: str
    function_python: str
    image: str
    image_entrypoint: tuple[str, ...]
    image_environment: Mapping[str, str]
    # The database's endpoint, its certificate, and the directory of the PostgreSQL behind it.
    database_host: str
    database_port: int
    database_certificate: str
    database_key: str
    database_directory: str
    # Where the keys of STS's tokens are published, by account: each has an issuer of its own.
    issuer_ports: Mapping[str, int]
    # Where the user pool's hosted sign-in is, and the certificate of both.
    sign_in_port: int
    identity_certificate: str
    identity_key: str
    # Overrides every task's definition, with what differs on a laptop.
    task_environment: Mapping[str, str] = field(default_factory=dict)
    # Maps a URL in a template to the laptop's: app clients may send people back only there.
    public_urls: Mapping[str, str] = field(default_factory=dict)
    # The hosts of certificates whose ARNs a template names.
    certificates: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> EmulatorSettings:
        """Read what `write` wrote."""
        values = json.loads(file.read_text())
        return cls(**{**values, "image_entrypoint": tuple(values["image_entrypoint"])})

    def write(self, file: Path) -> None:
        """Write it for the emulator's process."""
        file.write_text(json.dumps(asdict(self), indent=1))
