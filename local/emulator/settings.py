"""What the platform tells its emulator: a JSON file without a secret in it."""

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
    function_python: str
    image: str
    image_entrypoint: tuple[str, ...]
    image_environment: Mapping[str, str]
    # The database's endpoint, what proves it, and PostgreSQL behind it.
    database_host: str
    database_port: int
    database_certificate: str
    database_key: str
    database_socket: str
    # Where STS's tokens are published, and what proves it.
    issuer_port: int
    # Where the user pool's hosted sign-in is, and what proves both.
    sign_in_port: int
    identity_certificate: str
    identity_key: str
    # For every task, over its definition: what a laptop must do differently.
    task_environment: Mapping[str, str] = field(default_factory=dict)
    # From a URL in a template to where the laptop has it: an app client may send people back there only.
    public_urls: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> EmulatorSettings:
        """Read what `write` wrote."""
        values = json.loads(file.read_text())
        return cls(**{**values, "image_entrypoint": tuple(values["image_entrypoint"])})

    def write(self, file: Path) -> None:
        """Write it for the emulator's process."""
        file.write_text(json.dumps(asdict(self), indent=1))
