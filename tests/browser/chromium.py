"""A Chromium to test with: the one named, the machine's own, or the one in an npm package.

`make install` brings the last one with `@sparticuz/chromium`, compressed, for Linux on x86-64; it is unpacked
on first use. Nothing is downloaded here.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.state import PROJECT

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PACKAGE = PROJECT / "node_modules/@sparticuz/chromium"
_UNPACKED = PROJECT / ".local"
_NODE = PROJECT / ".venv/bin/node"
_DECOMPRESS = (
    "const fs = require('fs'), z = require('zlib');"
    "require('stream').pipeline(fs.createReadStream(process.argv[1]), z.createBrotliDecompress(),"
    " fs.createWriteStream(process.argv[2]), e => { if (e) throw e; })"
)
FLAGS = (
    "--no-sandbox",  # root cannot use it, and containers often may not
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoBrowserError(Exception):
    """There is no Chromium here; the message says where it was looked for."""


@dataclass(frozen=True)
class Chromium:
    """An executable, and what it needs in its environment beside this process's own."""

    executable: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def find(environ: Mapping[str, str] = os.environ, *, package: Path = PACKAGE) -> Chromium:
    """The Chromium named by the variable CHROMIUM, on the PATH, or in the npm package.

    Raises:
        NoBrowserError: there is none.
    """
    if named := environ.get("CHROMIUM"):
        if not os.access(named, os.X_OK):
            raise NoBrowserError(f"CHROMIUM names {named}, which is not executable")
        return Chromium(Path(named))
    for name in NAMES:
        if found := shutil.which(name, path=environ.get("PATH")):
            return Chromium(Path(found))
    if (platform.system(), platform.machine()) == ("Linux", "x86_64") and (package / "bin").is_dir():
        return _from_package(package)
    raise NoBrowserError(
        f"no Chromium: CHROMIUM is not set, none of {', '.join(NAMES)} is on the PATH, and "
        f"{package.relative_to(PROJECT)} (make install; Linux on x86-64 only) is not there"
    )


def _from_package(package: Path) -> Chromium:
    version = json.loads((package / "package.json").read_text())["version"]
    home = _UNPACKED / f"chromium-{version}"
    if not home.is_dir():
        _UNPACKED.mkdir(exist_ok=True)
        # Renamed when complete, so that an interruption leaves no partial browser.
        with tempfile.TemporaryDirectory(dir=_UNPACKED) as directory:
            made = Path(directory) / "made"
            made.mkdir()
            _unpack(package / "bin", made)
            if not home.exists():
                made.rename(home)
    executable = home / "chromium"
    environment = {}
    if not Path("/etc/fonts/fonts.conf").exists():
        environment["FONTCONFIG_FILE"] = str(_fonts(home))
    if "not found" in subprocess.run(["ldd", executable], capture_output=True, text=True, check=False).stdout:
        environment["LD_LIBRARY_PATH"] = str(home / "al2023" / "lib")
    return Chromium(executable, environment)


def _unpack(compressed: Path, home: Path) -> None:
    for source in sorted(compressed.glob("*.br")):
        target = home / source.stem
        subprocess.run([_NODE, "-e", _DECOMPRESS, str(source), str(target)], check=True)
        if target.suffix == ".tar":
            with tarfile.open(target) as archive:
                # Chromium looks for its software renderer beside itself.
                archive.extractall(
                    home if source.name.startswith("swiftshader") else _folder(target), filter="data"
                )
            target.unlink()
    (home / "chromium").chmod(0o755)


def _fonts(home: Path) -> Path:
    # The package's own file names a directory that does not exist here.
    path = home / "fonts.conf"
    path.write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">'
        f"<fontconfig><dir>{home / 'fonts'}</dir><cachedir>{home / 'fonts' / 'cache'}</cachedir></fontconfig>"
    )
    return path


def _folder(archive: Path) -> Path:
    folder = archive.with_suffix("")
    folder.mkdir(exist_ok=True)
    return folder
