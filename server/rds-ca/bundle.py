"""Put Amazon RDS's certificate authorities where the image wants them, if they are the expected ones.

Takes `global-bundle.pem` beside this file, or else downloads it from Amazon. Standard library only: it
runs in the image's build, before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import urllib.request
from pathlib import Path

URL = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
LOCAL = Path(__file__).with_name("global-bundle.pem")


class BundleError(RuntimeError):
    """The bundle cannot be had, or is not the expected one; the message says what to do."""


def read(local: Path, url: str) -> tuple[bytes, str]:
    """The bundle and where it came from.

    Raises:
        BundleError: there is no local one and the download failed.
    """
    if local.is_file():
        return local.read_bytes(), str(local)
    try:
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - our own constant, https
            return bytes(response.read()), url
    except OSError as error:
        raise BundleError(
            f"{url} cannot be read ({error}). "
            f"Without a network, save that file as server/rds-ca/{local.name}."
        ) from None


def check(content: bytes, *, origin: str, sha256: str) -> None:
    """Return if `content` has the digest `sha256`.

    Raises:
        BundleError: it has another.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BundleError(
            f"{origin} has SHA-256 {found} and {content.count(b'BEGIN CERTIFICATE')} certificates, "
            f"expected {sha256}. Amazon may have added authorities: look at the difference, "
            "then change RDS_CA_SHA256 in the Dockerfile."
        )


def main() -> int:
    """Write the checked bundle to --output; the exit code is 1 if that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sha256", required=True, help="the expected digest, in hexadecimal")
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    arguments = parser.parse_args()
    try:
        content, origin = read(LOCAL, URL)
        check(content, origin=origin, sha256=arguments.sha256)
    except BundleError as error:
        sys.stderr.write(f"bundle: {error}\n")
        return 1
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
