"""Replace a bundle of Amazon RDS's certificate authorities with the one that Amazon publishes today.

Nothing is written unless its SHA-256 is one that somebody has looked at: it is on record here, or named with
--sha256. Standard library only, so that any Python runs it. No build calls it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import sys
import urllib.request
from pathlib import Path

DIRECTORY = Path(__file__).parent
URLS = {
    "aws": "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem",
    "aws-cn": "https://rds-truststore.s3.cn-north-1.amazonaws.com.cn/global/global-bundle.pem",
    "aws-us-gov": "https://truststore.pki.us-gov-west-1.rds.amazonaws.com/global/global-bundle.pem",
}
# Amazon's bundles that were reviewed in 2026: 108 and 6 authorities.
REVIEWED = {
    "aws": "e5bb2084ccf45087bda1c9bffdea0eb15ee67f0b91646106e466714f9de3c7e3",
    "aws-cn": "d10db458b3b428b963a764a78694690d3af80616cd047de7ab56db53fb760a4e",
}
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
NAME = re.compile(rb"Amazon RDS [\w -]*?CA(?: \w+ G\d)?")


def authorities(bundle: bytes) -> set[str]:
    """Return the names in a PEM file, such as `Amazon RDS eu-west-1 Root CA RSA2048 G1`."""
    # A certificate carries the names of its issuer and its subject, in this order and as plain text.
    return {NAME.findall(base64.b64decode(pem))[-1].decode() for pem in CERTIFICATE.findall(bundle)}


def download(url: str) -> bytes:
    """Return what Amazon publishes at `url`."""
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - our own constants, https
        return bytes(response.read())


def replace(partition: str, content: bytes, *, expected: str | None, directory: Path) -> str:
    """Write the bundle of a partition if its digest is `expected`; return what is different, in words."""
    file = directory / f"{partition}.pem"
    former = authorities(file.read_bytes()) if file.exists() else set()
    found, digest = authorities(content), hashlib.sha256(content).hexdigest()
    change = "".join(
        f"{sign} {name}\n"
        for sign, names in (("+", found - former), ("-", former - found))
        for name in sorted(names)
    )
    if digest != expected:
        raise ValueError(
            f"{change}Amazon's bundle has SHA-256 {digest} and {len(found)} authorities; "
            "nobody has reviewed it. "
            f"Look at the difference above and, if it is right, run this again with --sha256 {digest}"
        )
    file.write_bytes(content)
    digests = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in directory.glob("*.pem")}
    sums = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    (directory / "SHA256SUMS").write_text(sums)
    return f"{change}{file} has {len(found)} authorities."


def main() -> int:
    """Download, compare, write; the exit code is 1 if nothing was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("partition", choices=list(URLS), help="AWS, AWS in China, or AWS GovCloud (US)")
    parser.add_argument("--sha256", help="the digest of the bundle that you have reviewed")
    arguments = parser.parse_args()
    partition = arguments.partition
    try:
        content = download(URLS[partition])
        expected = arguments.sha256 or REVIEWED.get(partition)
        print(replace(partition, content, expected=expected, directory=DIRECTORY))
    except OSError as error:
        print(f"bundle: {URLS[partition]} cannot be read ({error})", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
