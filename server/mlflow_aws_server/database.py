"""The two ways to the database: a store URI for MLflow, a bare connection for our own questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from mlflow_aws_server.database_token import rds_iam_token
from mlflow_aws_server.settings import Database

# A dead database must fail a request in seconds, not when TCP gives up after minutes.
_LIBPQ: Mapping[str, Any] = {
    "sslmode": "verify-full",
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def store_uri(database: Database, user: str, **options: str) -> str:
    """The SQLAlchemy URI of MLflow's store: no password in it, ever.

    `options` are further libpq parameters, such as `application_name`.
    """
    # `postgresql://` alone is psycopg 3 since SQLAlchemy 2.1.
    query = {"plugin": "rds_iam", **_LIBPQ, "sslrootcert": str(database.ca_file), **options}
    host = f"[{database.host}]" if ":" in database.host else database.host
    return (
        f"postgresql+psycopg2://{quote(user)}@{host}:{database.port}/{quote(database.name)}"
        f"?{urlencode(query, quote_via=quote)}"
    )


def connect(database: Database, user: str, *, password: str | None = None, application: str) -> Connection:
    """Open a connection with verified TLS: with an IAM token, or with `password` for the master user.

    Raises:
        psycopg2.OperationalError: the database is unreachable, not who it claims to be, or refuses `user`.
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
