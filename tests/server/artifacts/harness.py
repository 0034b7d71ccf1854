"""Downloads from a server, by readers of every kind, and the same requests to stock MLflow."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock
from urllib.parse import urlencode

from mlflow.server import app, handlers
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

from tests.server.conftest import PUBLIC_HOST, Identity
from tests.server.sealing.harness import Registry

PRESIGNED = "artifacts/presigned-download-url"


@dataclass(frozen=True)
class Answer:
    """What came back; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Site:
    """A server, and people and programs who download from it."""

    registry: Registry
    identity: Identity

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.registry._ports[-1]

    def new_run(self, files: Mapping[str, bytes]) -> str:
        """A run with these artifacts; returns its id."""
        run, prefix = self.registry.new_run()
        self.registry.store.write_model(prefix, files)
        return run

    def new_large(self, size: int) -> tuple[str, str]:
        """A run with an artifact `large.bin` of so many bytes; its id and the object's key."""
        run, prefix = self.registry.new_run()
        key = f"{prefix}/large.bin"
        self.registry.store.client.put_object(Bucket=self.registry.store.bucket, Key=key, Body=bytes(size))
        return run, key

    def headers(self, role: str, *, person: bool = False) -> dict[str, str]:
        """Who asks: a program, or a person's browser."""
        who = (
            {"x-amzn-oidc-accesstoken": self.identity.user_token(role)}
            if person
            else {"Authorization": f"Bearer {self.identity.token(role)}"}
        )
        return {"Host": PUBLIC_HOST, "Content-Type": "application/json", **who}

    def send(
        self,
        method: str,
        route: str,
        body: object = None,
        /,
        *,
        role: str = "viewer",
        person: bool = False,
        headers: Mapping[str, str] = {},
        **query: str,
    ) -> Answer:
        """One request, read to its end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method,
                f"{route}?{urlencode(query)}" if query else route,
                None if body is None else json.dumps(body),
                {**self.headers(role, person=person), **headers},
            )
            response = connection.getresponse()
            given = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, given, response.read())
        finally:
            connection.close()

    @contextmanager
    def not_reading(self, route: str, /, *, role: str = "viewer", **query: str) -> Iterator[socket.socket]:
        """A reader who asks and takes nothing."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as reader:
            lines = [f"GET {route}?{urlencode(query)} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in self.headers(role).items()]
            reader.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            yield reader

    def audit(self) -> list[dict[str, Any]]:
        """The audit lines so far."""
        lines = (line for line in self.registry.output().splitlines() if '"audit":' in line)
        return [json.loads(line[line.index("{") :]) for line in lines]


@dataclass(frozen=True)
class Stock:
    """MLflow's own Flask application."""

    client: Any

    def send(self, route: str, /, **query: str) -> Answer:
        """One GET."""
        response = self.client.get(route, query_string=query, headers={"Host": "localhost"})
        return Answer(
            response.status_code,
            {name.lower(): value for name, value in response.headers.items()},
            response.get_data(),
        )


@contextmanager
def stock_mlflow(site: Site) -> Iterator[Stock]:
    """MLflow with the stores of a site."""
    rds, store = site.registry.deployment.rds, site.registry.store
    where = f"?host={rds.postgres.socket_directory}&port={rds.port}"
    uri = f"postgresql+psycopg2://postgres@/{site.registry.deployment.database}{where}"
    environment = {
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "MLFLOW_S3_ENDPOINT_URL": store.endpoint,
    }
    tracking, models = TrackingStore(uri, store.root), RegistryStore(uri)
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(handlers, "_tracking_store", tracking),
        mock.patch.object(handlers, "_model_registry_store", models),
    ):
        yield Stock(app.test_client())
    tracking.engine.dispose()
    models.engine.dispose()
