"""A second PostgreSQL that follows a first one: what a reader is to the writer of a cluster."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from local.parts.certificates import ServerCertificate
from local.parts.postgres import SUPERUSER, Postgres

# What the writer's `socket_hba` needs.
REPLICATION_RULE = f"local replication {SUPERUSER} trust"


def standby(writer: Postgres, directory: Path, *, host: str, tls: ServerCertificate | None) -> Postgres:
    """Copy the stopped `writer` into a server at `host`, on the same port, that will replay what it writes.

    Neither is started; start the writer first. It needs `REPLICATION_RULE`.

    Raises:
        subprocess.CalledProcessError: the copy failed.
    """
    follow = f"host={writer.socket_directory} port={writer.port} user={SUPERUSER}"
    reader = replace(
        writer,
        directory=directory,
        host=host,
        tls=tls,
        settings={**writer.settings, "primary_conninfo": follow},
        _process=None,
    )
    # `cp` keeps the owner.
    subprocess.run(["cp", "-a", "--", str(writer.directory), str(directory)], check=True)
    (directory / "data" / "standby.signal").touch()
    return reader
