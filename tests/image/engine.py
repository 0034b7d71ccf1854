"""A container engine of our own, from Debian's packages, and a base image without a registry."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# The Debian and the Python of the Dockerfile's base image.
SUITE = "trixie"
PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
TOOLS = ("dockerd", "debootstrap")


def obstacle() -> str | None:
    """Return why no engine can be started here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "an engine of its own needs Linux and root"
    missing = [name for name in TOOLS if shutil.which(name) is None]
    return (
        f"{' and '.join(missing)} not installed: apt-get install docker.io debootstrap" if missing else None
    )


@dataclass(frozen=True)
class Engine:
    """A running `dockerd`, asked by its own socket."""

    socket: Path

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command of the client to its end."""
        # A wrapper of the same name may come first in PATH; this one belongs to dockerd.
        client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
        finished = subprocess.run(
            [client, "--host", f"unix://{self.socket}", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if check and finished.returncode != 0:
            raise AssertionError(f"docker {' '.join(arguments)}:\n{finished.stdout}{finished.stderr}")
        return finished


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Engine]:
    """Start an engine that keeps everything in `directory` and has no network but the host's."""
    engine = Engine(directory / "docker.sock")
    log = directory / "dockerd.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                "dockerd",
                "--bridge=none",
                "--iptables=false",
                f"--data-root={directory / 'data'}",
                f"--exec-root={directory / 'exec'}",
                f"--pidfile={directory / 'dockerd.pid'}",
                f"--host=unix://{engine.socket}",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while engine.docker("info", check=False).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"dockerd does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield engine
    finally:
        process.terminate()
        process.wait(60)
        subprocess.run(
            ["umount", str(directory / "exec" / "netns" / "default")], capture_output=True, check=False
        )


def make_base(engine: Engine, directory: Path) -> str:
    """Return the name of a base image made by debootstrap, which trusts whom this machine trusts."""
    tree = directory / "base"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise AssertionError(f"debootstrap:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
    shutil.rmtree(tree / "var" / "cache" / "apt")
    shutil.copyfile(AUTHORITIES, tree / AUTHORITIES.relative_to("/"))
    if index := os.environ.get("PIP_INDEX_URL"):
        (tree / "etc" / "pip.conf").write_text(f"[global]\nindex-url = {index}\n")
    archive = directory / "base.tar"
    subprocess.run(["tar", "-C", str(tree), "-cf", str(archive), "."], check=True)
    engine.docker("import", str(archive), f"base:{SUITE}")
    archive.unlink()
    return f"base:{SUITE}"
