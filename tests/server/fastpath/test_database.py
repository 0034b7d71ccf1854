"""The way to the database as in production: TLS that verifies, and a token as the password."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow_aws_server.fastpath.database import connector

from tests.conftest import RdsLike


@dataclass
class Address:
    host: str
    port: int
    name: str
    ca_file: Path
    region: str = "eu-central-1"


@dataclass
class Share:
    fast_path: int = 2


@dataclass
class Production:
    database: Address
    database_user: str
    connections: Any = None
    fast_path: bool = True


@pytest.fixture
def production(rds: RdsLike, monkeypatch: pytest.MonkeyPatch) -> Production:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    if not rds.administer("SELECT 1 FROM pg_roles WHERE rolname = 'fast_path_test'"):
        rds.administer("CREATE ROLE fast_path_test LOGIN IN ROLE rds_iam")
    return Production(Address(rds.host, rds.port, "postgres", rds.ca_file), "fast_path_test", Share())


async def test_a_connection_is_encrypted_and_verified(production: Production) -> None:
    connection = await connector(production)()
    try:
        row = await connection.fetchrow("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert tuple(row) == (True, "TLSv1.3")
        assert await connection.fetchval("SELECT current_user") == "fast_path_test"
        assert await connection.fetchval("SHOW jit") == "off"
    finally:
        await connection.close()


async def test_a_database_with_another_name_is_not_trusted(production: Production) -> None:
    production.database.host = "127.0.0.2"
    with pytest.raises((ssl.SSLCertVerificationError, OSError)):
        await connector(production)()


async def test_a_database_of_an_unknown_authority_is_not_trusted(
    production: Production, tmp_path: Path
) -> None:
    from local.parts.certificates import CertificateAuthority

    production.database.ca_file = CertificateAuthority.create(tmp_path / "ca", name="Other CA").bundle
    with pytest.raises(ssl.SSLCertVerificationError):
        await connector(production)()


async def test_every_connection_logs_in_with_a_token_of_its_own(
    production: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def token(*arguments: object) -> str:
        asked.append(arguments)
        return f"token {len(asked)}"

    monkeypatch.setattr("mlflow_aws_server.fastpath.database.rds_iam_token", token)
    open_connection = connector(production)
    for _ in range(2):
        await (await open_connection()).close()
    address = production.database
    expected = (address.host, address.port, "fast_path_test", "eu-central-1")
    assert asked == [expected] * len(asked)
    assert len(asked) == 2
