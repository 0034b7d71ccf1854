"""The ways to the database: a store URI for MLflow, and connections of our own, blocking and asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import asyncpg
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from mlflow_aws_server.database.admission import admit_async
from mlflow_aws_server.database.token import rds_iam_token
from mlflow_aws_server.limits import QUESTION_TIME
from mlflow_aws_server.settings import DatabaseSettings

AsyncConnection = Any  # asyncpg ships no types
OpenConnection = Callable[[], Awaitable[AsyncConnection]]

_CONNECT_TIMEOUT_SECONDS = 10.0
# The role's own limit ends statements (roles.py); this one notices a database that answers no more.
_ANSWER_TIMEOUT_SECONDS = QUESTION_TIME.most + 10.0

# A dead database must fail a request within seconds, not after the minutes that TCP takes.
_LIBPQ: Mapping[str, Any] = {
    "sslmode": "verify-full",
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def store_uri(database: DatabaseSettings, user: str, **options: str) -> str:
    """The SQLAlchemy URI of MLflow's store, without a password.

    `options` are further libpq parameters, such as `application_name`.
    """
    # Since SQLAlchemy 2.1, plain `postgresql://` means psycopg 3.
    query = {"plugin": "rds_iam", **_LIBPQ, "sslrootcert": str(database.ca_file), **options}
    host = f"[{database.host}]" if ":" in database.host else database.host
    return (
        f"postgresql+psycopg2://{quote(user)}@{host}:{database.port}/{quote(database.name)}"
        f"?{urlencode(query, quote_via=quote)}"
    )


def connect(
    database: DatabaseSettings, user: str, *, password: str | None = None, application: str
) -> Connection:
    """Open a connection with verified TLS: with an IAM token, or with `password` for the master user.

    Raises:
        psycopg2.OperationalError: the database is unreachable, or not trusted, or refuses `user`.
    """
    if password is None:
        password = rds_iam_token(database.host, database.port, user, database.region)
    opened: Connection = psycopg2.connect(
        host=database.host,
        port=database.port,
        dbname=database.name,
        user=user,
        password=password,
        application_name=application,
        sslrootcert=str(database.ca_file),
        **_LIBPQ,
    )
    return opened


def connector(database: DatabaseSettings, user: str) -> OpenConnection:
    """How to open one asynchronous connection: TLS with `verify-full`, and a fresh IAM token each time.

    It is one of the server's, which a migration may refuse (`admission`).

    Raises:
        OSError: the CA bundle cannot be read.
    """
    tls = ssl.create_default_context(cafile=str(database.ca_file))
    tls.minimum_version = ssl.TLSVersion.TLSv1_2

    async def token() -> str:
        # Signing is local, but every few hours the role's credentials are fetched over the network.
        return await asyncio.to_thread(rds_iam_token, database.host, database.port, user, database.region)

    async def open_connection() -> AsyncConnection:
        connection = await connect_async(
            host=database.host,
            port=database.port,
            user=user,
            database=database.name,
            password=token,
            ssl=tls,
        )
        try:
            await admit_async(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    return open_connection


async def connect_async(**where: Any) -> AsyncConnection:
    """Open one asynchronous connection; `where` and how to log in are asyncpg's own."""
    connection = await asyncpg.connect(
        timeout=_CONNECT_TIMEOUT_SECONDS,
        command_timeout=_ANSWER_TIMEOUT_SECONDS,
        statement_cache_size=256,
        # Entries are dropped when the schema changes; their age does not matter.
        max_cached_statement_lifetime=0,
        # One search must not take all of the database's cores from concurrent writers.
        server_settings={
            "application_name": "mlflow-fast-path",
            "jit": "off",
            "max_parallel_workers_per_gather": "0",
        },
        **where,
    )
    _notice_dead_peers(connection)
    return connection


def _notice_dead_peers(connection: AsyncConnection) -> None:
    # After a failover the old instance may never close its connections: without this, they would hang
    # for as long as the kernel retransmits (some 15 minutes).
    transport = getattr(connection, "_transport", None)
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None:
        return
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", 15),
            ("TCP_KEEPINTVL", 5),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", 15_000),
        ):
            if hasattr(socket, name):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
