"""The way to the database as in production: TLS that verifies, and a token as the password."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path

import pytest
from mlflow_aws_server.database.connect import connector
from mlflow_aws_server.settings import DatabaseSettings

from tests.conftest import RdsLike

USER = "fast_path_test"


async def _admit(_connection: object) -> None:
    """There is no schema here."""


@pytest.fixture
def database(rds: RdsLike, monkeypatch: pytest.MonkeyPatch) -> DatabaseSettings:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    monkeypatch.setattr("mlflow_aws_server.database.connect.admit_async", _admit)
    if not rds.administer(f"SELECT 1 FROM pg_roles WHERE rolname = '{USER}'"):
        rds.administer(f"CREATE ROLE {USER} LOGIN IN ROLE rds_iam")
    return DatabaseSettings(
        host=rds.host, port=rds.port, name="postgres", ca_file=rds.ca_file, region="eu-central-1"
    )


async def test_a_connection_is_encrypted_and_verified(database: DatabaseSettings) -> None:
    connection = await connector(database, USER)()
    try:
        row = await connection.fetchrow("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert tuple(row) == (True, "TLSv1.3")
        assert await connection.fetchval("SELECT current_user") == USER
        assert await connection.fetchval("SHOW jit") == "off"
    finally:
        await connection.close()


async def test_a_database_with_another_name_is_not_trusted(database: DatabaseSettings) -> None:
    elsewhere = dataclasses.replace(database, host="127.0.0.2")
    with pytest.raises((ssl.SSLCertVerificationError, OSError)):
        await connector(elsewhere, USER)()


async def test_a_database_of_an_unknown_authority_is_not_trusted(
    database: DatabaseSettings, tmp_path: Path
) -> None:
    from local.parts.certificates import CertificateAuthority

    other = CertificateAuthority.create(tmp_path / "ca", name="Other CA").bundle
    with pytest.raises(ssl.SSLCertVerificationError):
        await connector(dataclasses.replace(database, ca_file=other), USER)()


async def test_every_connection_logs_in_with_a_token_of_its_own(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def token(*arguments: object) -> str:
        asked.append(arguments)
        return f"token {len(asked)}"

    monkeypatch.setattr("mlflow_aws_server.database.connect.rds_iam_token", token)
    open_connection = connector(database, USER)
    for _ in range(2):
        await (await open_connection()).close()
    expected = (database.host, database.port, USER, "eu-central-1")
    assert asked == [expected] * len(asked)
    assert len(asked) == 2
