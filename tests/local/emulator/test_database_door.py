"""The database's endpoint: what opens it, and what does not."""

from __future__ import annotations

import datetime as dt
import ssl
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg2
import pytest

if TYPE_CHECKING:
    from local.parts.aws import Aws
    from tests.local.conftest import Account


def token_of(role: Aws, account: Account, **changed: Any) -> str:
    target = {"DBHostname": "localhost", "Port": account.database_port, "DBUsername": "app", **changed}
    return str(role.client("rds").generate_db_auth_token(**target))


def connect(account: Account, password: str, **changed: Any) -> Any:
    return psycopg2.connect(
        **{
            "host": "localhost",
            "port": account.database_port,
            "user": "app",
            "dbname": "mlflow",
            "sslmode": "verify-full",
            "sslrootcert": str(account.authority.bundle),
            "password": password,
            "connect_timeout": 10,
            **changed,
        }
    )


def refusal(account: Account, password: str, **changed: Any) -> str:
    with pytest.raises(psycopg2.OperationalError) as refused:
        connect(account, password, **changed)
    return str(refused.value)


@pytest.fixture(scope="module")
def role(account: Account) -> Aws:
    return account.connecting_role("app")


def test_a_token_of_a_role_that_may_connect_opens_the_database(account: Account, role: Aws) -> None:
    connection = connect(account, token_of(role, account))
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, repeat('x', 3000000)")
        user, large = cursor.fetchone()
    connection.close()
    assert (user, len(large)) == ("app", 3_000_000)


async def test_a_token_opens_the_database_for_asyncpg(account: Account, role: Aws) -> None:
    context = ssl.create_default_context(cafile=str(account.authority.bundle))
    connection = await asyncpg.connect(
        host="localhost",
        port=account.database_port,
        user="app",
        database="mlflow",
        password=token_of(role, account),
        ssl=context,
    )
    assert await connection.fetchval("SELECT current_user") == "app"
    await connection.close()


def test_an_expired_token_is_refused(account: Account, role: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=15, seconds=1)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: signed)
    assert 'PAM authentication failed for user "app"' in refusal(account, token_of(role, account))


def test_a_token_a_little_younger_than_fifteen_minutes_is_accepted(
    account: Account, role: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=14)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: signed)
    token = token_of(role, account)
    monkeypatch.undo()
    connect(account, token).close()


def test_a_token_for_another_user_is_refused(account: Account, role: Aws) -> None:
    token = token_of(role, account, DBUsername="postgres")
    assert "PAM authentication failed" in refusal(account, token)


def test_a_tampered_token_is_refused(account: Account, role: Aws) -> None:
    token = token_of(role, account)
    last = token[-1]
    assert "PAM authentication failed" in refusal(account, token[:-1] + ("0" if last != "0" else "1"))


@pytest.mark.parametrize("password", ["", "password", "localhost:1/?Action=connect&DBUser=app", "é"])
def test_a_password_that_is_not_a_signed_token_is_refused(account: Account, password: str) -> None:
    message = refusal(account, password)
    assert "PAM authentication failed" in message or "no password supplied" in message


def test_a_token_for_another_host_is_refused(account: Account, role: Aws) -> None:
    token = token_of(role, account, DBHostname="127.0.0.1")
    assert "PAM authentication failed" in refusal(account, token)


def test_a_token_for_another_port_is_refused(account: Account, role: Aws) -> None:
    token = token_of(role, account, Port=account.database_port + 1)
    assert "PAM authentication failed" in refusal(account, token)


def test_a_token_without_its_session_token_is_refused(account: Account, role: Aws) -> None:
    import dataclasses

    bare = dataclasses.replace(role, session_token=None)
    assert "PAM authentication failed" in refusal(account, token_of(bare, account))


def test_a_token_of_credentials_nobody_issued_is_refused(account: Account, role: Aws) -> None:
    import dataclasses

    forged = dataclasses.replace(role, access_key="ASIAFORGEDFORGEDFORG")
    assert "PAM authentication failed" in refusal(account, token_of(forged, account))


def test_a_role_without_permission_to_connect_is_refused(account: Account) -> None:
    everything_else = account.role([{"Effect": "Allow", "Action": ["rds:*", "s3:*"], "Resource": "*"}])
    assert "PAM authentication failed" in refusal(account, token_of(everything_else, account))


def test_a_role_that_may_connect_as_somebody_else_is_refused(account: Account) -> None:
    other = account.connecting_role("somebody_else")
    assert "PAM authentication failed" in refusal(account, token_of(other, account))


def test_an_instance_without_iam_authentication_refuses_tokens(account: Account, role: Aws) -> None:
    rds = account.aws.client("rds")
    rds.modify_db_instance(
        DBInstanceIdentifier="tested", EnableIAMDatabaseAuthentication=False, ApplyImmediately=True
    )
    try:
        assert "PAM authentication failed" in refusal(account, token_of(role, account))
    finally:
        rds.modify_db_instance(
            DBInstanceIdentifier="tested", EnableIAMDatabaseAuthentication=True, ApplyImmediately=True
        )
    connect(account, token_of(role, account)).close()


def test_a_connection_without_tls_is_refused(account: Account, role: Aws) -> None:
    message = refusal(account, token_of(role, account), sslmode="disable", sslrootcert="")
    assert (
        'no pg_hba.conf entry for host "127.0.0.1", user "app", database "mlflow", no encryption' in message
    )


def test_the_administrator_signs_in_with_a_token(account: Account) -> None:
    role = account.connecting_role("administrator")
    connection = connect(account, token_of(role, account, DBUsername="administrator"), user="administrator")
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (False, True)
        cursor.execute("CREATE ROLE granted LOGIN")
        cursor.execute("GRANT rds_iam TO granted, CURRENT_USER")
    connection.rollback()
    connection.close()


def test_a_member_of_rds_iam_is_refused_with_the_password_that_rds_keeps(account: Account) -> None:
    message = refusal(account, account.password, user="administrator")
    assert 'PAM authentication failed for user "administrator"' in message


def test_nobody_else_s_token_signs_in_as_the_administrator(account: Account, role: Aws) -> None:
    token = token_of(role, account, DBUsername="administrator")
    assert "PAM authentication failed" in refusal(account, token, user="administrator")


def test_a_user_who_is_not_a_member_of_rds_iam_cannot_use_a_token(account: Account) -> None:
    role = account.connecting_role("stranger")
    message = refusal(account, token_of(role, account, DBUsername="stranger"), user="stranger")
    assert 'password authentication failed for user "stranger"' in message


def test_a_query_can_be_cancelled_through_the_door(account: Account, role: Aws) -> None:
    import threading

    connection = connect(account, token_of(role, account))
    timer = threading.Timer(0.3, connection.cancel)
    timer.start()
    with connection.cursor() as cursor, pytest.raises(psycopg2.errors.QueryCanceled):
        cursor.execute("SELECT pg_sleep(30)")
    timer.join()
    connection.close()


def test_twenty_clients_are_served_at_once(account: Account, role: Aws) -> None:
    token = token_of(role, account)
    connections = [connect(account, token) for _ in range(20)]
    for connection in connections:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.close()


def test_a_stopped_instance_loses_its_clients_and_takes_none_until_it_is_started(
    account: Account, role: Aws
) -> None:
    rds = account.aws.client("rds")
    connection = connect(account, token_of(role, account))
    rds.stop_db_instance(DBInstanceIdentifier="tested")
    try:
        with connection.cursor() as cursor, pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")
        assert "closed the connection" in refusal(account, token_of(role, account))
    finally:
        rds.start_db_instance(DBInstanceIdentifier="tested")
    connect(account, token_of(role, account)).close()
