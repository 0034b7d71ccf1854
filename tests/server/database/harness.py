"""A database that fails as databases do, and what of it reaches a client."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mlflow.server import handlers
from mlflow_aws_server.identity.roles import Principal

from tests.conftest import RdsLike
from tests.server.frozen.harness import ADMIN
from tests.server.provenance.harness import Answer, Server

_INSIDE = re.compile(
    r"\[SQL|\[parameters|sqlalche|psycopg|asyncpg|Traceback|site-packages|autoflush|SELECT |INSERT |"
    r"violates|constraint|CONTEXT:|DETAIL:|connection to server|mlflow_server",
)


@dataclass
class Stack:
    """The server, and its database from the other side."""

    rds: RdsLike
    server: Server

    def send(
        self, method: str, path: str, document: Any = None, *, principal: Principal = ADMIN, **more: Any
    ) -> Answer:
        """Send a request; its answer must not show how the server is built."""
        query = ""
        if method == "GET" and document:
            query = urlencode(document, doseq=True, errors="surrogatepass")
            document = None
        answer = self.server.send(method, path, document, query=query, principal=principal, **more)  # type: ignore[arg-type]
        if answer.status >= 400 or path == "/graphql":
            text = answer.body.decode(errors="replace")
            assert not _INSIDE.search(text), (method, path, document, query, text)
        return answer

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """As the superuser."""
        return self.rds.administer(statement, database=self.server.database)

    def reconnect(self) -> None:
        """End every connection, so that the next ones begin with what was set meanwhile."""
        self.rds.administer(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.server.database}'"
        )
        for store in (handlers._tracking_store, handlers._model_registry_store):
            store.engine.dispose()

    @contextmanager
    def setting(self, name: str, value: str) -> Iterator[None]:
        """Every session begins with this, instead of what its role begins with."""
        where = f"ALTER ROLE postgres IN DATABASE {self.server.database}"
        self.sql(f"{where} SET {name} = '{value}'")
        self.reconnect()
        try:
            yield
        finally:
            self.rds.administer(f"{where} RESET {name}")
            self.reconnect()

    @contextmanager
    def locked(self, tables: str) -> Iterator[None]:
        """Nobody else reads or writes these tables."""
        with self.rds.postgres.cursor(self.server.database) as cursor:
            cursor.execute(f"BEGIN; LOCK TABLE {tables}")
            yield

    def ended_by_time(self) -> int:
        """How many statements have run into their time limit so far."""
        log = self.rds.postgres.log.read_text(errors="replace")
        return len(
            re.findall(rf"@{self.server.database} ERROR:  canceling statement due to statement timeout", log)
        )

    def wait_until_idle(self) -> None:
        """Return once no statement runs any more."""
        while self.sql(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ):
            time.sleep(0.05)
