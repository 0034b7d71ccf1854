"""Logins with IAM tokens."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import boto3
import psycopg2
import pytest
import sqlalchemy
from mlflow_aws_server.database import token
from mlflow_aws_server.database.connect import connect, store_uri
from mlflow_aws_server.database.token import NoCredentialsError, rds_iam_token
from mlflow_aws_server.settings import DatabaseSettings
from sqlalchemy.exc import ArgumentError, OperationalError

from tests.conftest import RdsLike

_USER = "token_user"


@pytest.fixture(autouse=True)
def role_credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLEEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example-of-a-role-s-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "example/of+a=session-token")
    token._session.cache_clear()
    yield
    token._session.cache_clear()


@pytest.fixture(scope="module")
def database(rds: RdsLike) -> DatabaseSettings:
    rds.administer(f"CREATE ROLE {_USER} LOGIN")
    rds.administer(f"GRANT rds_iam TO {_USER}")
    return DatabaseSettings(
        host=rds.host, port=rds.port, name=rds.new_database(), ca_file=rds.ca_file, region="eu-central-1"
    )


def test_token_is_the_one_boto3_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Frozen:
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

        @classmethod
        def utcnow(cls) -> Frozen:
            return cls(2026, 1, 2, 3, 4, 5)

    moment = dt.datetime(2026, 1, 2, 3, 4, 5)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: moment, raising=True)
    theirs = (
        boto3.Session()
        .client("rds", region_name="eu-central-1")
        .generate_db_auth_token(
            DBHostname="db.example.com", Port=5432, DBUsername="mlflow_server", Region="eu-central-1"
        )
    )
    ours = rds_iam_token("db.example.com", 5432, "mlflow_server", "eu-central-1")
    assert ours == theirs


def test_token_is_for_one_user_for_15_minutes() -> None:
    token = rds_iam_token("db.example.com", 6432, "mlflow_server", "eu-central-1")
    assert token.startswith("db.example.com:6432/?")
    query = parse_qs(urlsplit(f"https://{token}").query)
    assert query["DBUser"] == ["mlflow_server"]
    assert query["Action"] == ["connect"]
    assert query["X-Amz-Expires"] == ["900"]
    assert "/eu-central-1/rds-db/aws4_request" in query["X-Amz-Credential"][0]
    assert query["X-Amz-Security-Token"] == ["example/of+a=session-token"]


def test_missing_credentials_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(NoCredentialsError, match="give the task a role"):
        rds_iam_token("db.example.com", 5432, "mlflow_server", "eu-central-1")


def test_engine_logs_in_over_tls(database: DatabaseSettings) -> None:
    engine = sqlalchemy.create_engine(store_uri(database, _USER))
    try:
        with engine.connect() as connection:
            row = connection.execute(
                sqlalchemy.text(
                    "SELECT current_user, ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                )
            ).one()
    finally:
        engine.dispose()
    assert tuple(row) == (_USER, True, "TLSv1.3")


def test_every_connection_gets_a_token_of_its_own(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int, str, str]] = []

    def recorded(*arguments: str | int) -> str:
        made.append(arguments)  # type: ignore[arg-type]
        return f"token-{len(made)}"

    monkeypatch.setattr(token, "rds_iam_token", recorded)
    engine = sqlalchemy.create_engine(store_uri(database, _USER))
    try:
        with engine.connect(), engine.connect():
            pass
    finally:
        engine.dispose()
    assert made == [(database.host, database.port, _USER, "eu-central-1")] * 2


def test_engine_keeps_no_token(database: DatabaseSettings) -> None:
    engine = sqlalchemy.create_engine(store_uri(database, _USER))
    try:
        with engine.connect():
            pass
        assert engine.url.password is None
        assert "Signature" not in repr(vars(engine.pool)) + repr(engine.url)
    finally:
        engine.dispose()


def test_refused_login_shows_no_token(
    rds: RdsLike, database: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    rds.administer("CREATE ROLE stranger LOGIN")
    engine = sqlalchemy.create_engine(store_uri(database, "stranger"))
    with caplog.at_level(logging.INFO), pytest.raises(OperationalError) as caught:
        engine.connect()
    assert "stranger" in str(caught.value)
    assert "X-Amz" not in str(caught.value) + repr(caught.value) + caplog.text


@pytest.mark.parametrize(
    "weaker",
    [
        "sslmode=require",
        "sslmode=verify-ca&sslrootcert=/ca.pem",
        "sslmode=verify-full",
        "sslrootcert=/ca.pem",
        "",
    ],
)
def test_weaker_tls_is_refused(weaker: str) -> None:
    with pytest.raises(ArgumentError, match="write sslmode=verify-full and sslrootcert=FILE"):
        sqlalchemy.create_engine(f"postgresql+psycopg2://user@db.example.com/mlflow?plugin=rds_iam&{weaker}")


def test_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ArgumentError, match="holds a password") as caught:
        sqlalchemy.create_engine(
            "postgresql+psycopg2://user:hunter2@db.example.com/mlflow"
            "?plugin=rds_iam&sslmode=verify-full&sslrootcert=/ca.pem"
        )
    assert "hunter2" not in str(caught.value)


def test_uri_without_user_is_refused() -> None:
    with pytest.raises(ArgumentError, match="needs a user and a host"):
        sqlalchemy.create_engine(
            "postgresql+psycopg2://db.example.com/mlflow?plugin=rds_iam&sslmode=verify-full&sslrootcert=/ca.pem"
        )


def test_database_with_another_name_than_its_certificate_is_refused(database: DatabaseSettings) -> None:
    impostor = DatabaseSettings(
        host="127.0.0.2",
        port=database.port,
        name=database.name,
        ca_file=database.ca_file,
        region=database.region,
    )
    with pytest.raises(psycopg2.OperationalError):
        connect(impostor, _USER, application="test")


def test_ipv6_host_and_awkward_names_survive_in_the_uri(database: DatabaseSettings) -> None:
    url = sqlalchemy.make_url(
        store_uri(
            DatabaseSettings(
                host="fd00::1", port=1, name="mlflow", ca_file=database.ca_file, region="eu-central-1"
            ),
            _USER,
            options="-c lock_timeout=60s",
        )
    )
    assert (url.host, url.port, url.query["options"]) == ("fd00::1", 1, "-c lock_timeout=60s")
