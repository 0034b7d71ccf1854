"""Database logins with IAM tokens instead of passwords.

`RdsIamPlugin` is a SQLAlchemy engine plugin (entry-point group `sqlalchemy.plugins`, name `rds_iam`), so
that everything in MLflow that opens a database by URI logs in this way: the server, its workers,
`mlflow db upgrade` and `mlflow gc`.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any, cast

import botocore.session
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from sqlalchemy import event
from sqlalchemy.engine import URL, CreateEnginePlugin, Engine
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import ArgumentError

from mlflow_aws_server.database.admission import admit
from mlflow_aws_server.database.statements import CompiledStatements

# RDS accepts a token for 15 minutes, and checks it only when a connection opens.
TOKEN_LIFETIME_SECONDS = 900


class NoCredentialsError(RuntimeError):
    """There are no AWS credentials to sign a database token with."""


def rds_iam_token(host: str, port: int, user: str, region: str) -> str:
    """A fresh token that lets `user` log in at `host`:`port` within 15 minutes.

    Signing is local and takes well under a millisecond; only the role's credentials come over the
    network, once every few hours. So every connection gets its own token, and none is kept. The result
    equals that of boto3's `generate_db_auth_token`, without loading 17 MB of RDS API model.

    Raises:
        NoCredentialsError: no AWS credentials were found.
    """
    credentials = _credentials()
    request = AWSRequest("GET", f"https://{host}:{port}/", params={"Action": "connect", "DBUser": user})
    SigV4QueryAuth(
        credentials.get_frozen_credentials(), "rds-db", region, expires=TOKEN_LIFETIME_SECONDS
    ).add_auth(request)
    return str(request.prepare().url).removeprefix("https://")


def prepare() -> None:
    """Load what signing needs, without asking for credentials, so that forked processes share it."""
    _session().get_component("credential_provider")


class RdsIamPlugin(CreateEnginePlugin):
    """Gives every new connection of an engine a token as its password.

    With `admitted` in the URI, a migration may refuse its sessions (`admission`).

    It refuses a URI that holds a password, or that would send the token over an unverified connection.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:  # noqa: ARG002 - SQLAlchemy's
        _require_verified(url)
        if url.host is None or url.username is None:
            raise ArgumentError(f"rds_iam: the URI {url!r} needs a user and a host, for whom a token is made")
        if url.password is not None:
            raise ArgumentError(
                f"rds_iam: the URI {url!r} holds a password; remove it: IAM tokens replace it"
            )
        self._host, self._port, self._user = url.host, url.port or 5432, url.username
        self._admitted = "admitted" in url.query

    def update_url(self, url: URL) -> URL:
        """The URI without this plugin's own parameter."""
        return url.difference_update_query(["admitted"])

    def engine_created(self, engine: Engine) -> None:
        """Attach the token to each connection attempt, and bound what the engine remembers."""
        event.listen(engine, "do_connect", self._connect)
        engine.update_execution_options(compiled_cache=CompiledStatements())

    def _connect(
        self, dialect: Dialect, _record: Any, arguments: list[Any], parameters: dict[str, Any]
    ) -> Any:
        token = rds_iam_token(self._host, self._port, self._user, _region())
        # Connecting here keeps the token out of the engine's own, long-lived parameters.
        connection = dialect.connect(*arguments, **{**parameters, "password": token})
        if self._admitted:
            try:
                admit(cast("Any", connection))
            except BaseException:
                connection.close()
                raise
        return connection


def _require_verified(url: URL) -> None:
    mode = url.query.get("sslmode")
    if mode != "verify-full" or not url.query.get("sslrootcert"):
        raise ArgumentError(
            f"rds_iam: sslmode is {mode!r} in {url!r}; write sslmode=verify-full and sslrootcert=FILE, "
            "so that the token reaches only the database"
        )


def _region() -> str:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise NoCredentialsError("AWS_REGION is not set: a database token is signed for one region")
    return region


@cache
def _session() -> botocore.session.Session:
    return botocore.session.get_session()


def _credentials() -> Credentials:
    # The session keeps the provider's credentials and refreshes them before they expire.
    credentials = _session().get_credentials()
    if credentials is None:
        raise NoCredentialsError(
            "no AWS credentials found: give the task a role (ECS sets AWS_CONTAINER_CREDENTIALS_RELATIVE_URI)"
        )
    return credentials
