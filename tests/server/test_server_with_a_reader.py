"""The real server, as the container starts it, with a writer and a reader at addresses of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from local.parts.ports import free_port
from tests.conftest import RdsLike
from tests.server.conftest import (
    SERVER_PYTHON,
    Identity,
    Process,
    deployment,
    request,
    wait_until_ready,
)
from tests.server.standby import DATABASE, Pair, replicated

pytestmark = pytest.mark.slow

_API = "/ajax-api/2.0/mlflow"
_USER = "mlflow_server"


@dataclass(frozen=True)
class Server:
    port: int
    identity: Identity
    pair: Pair

    def program(self, path: str, body: object) -> tuple[int, dict[str, object]]:
        status, answer = request(self.port, "POST", f"{_API}/{path}", body, role="contributor")
        return status, json.loads(answer)

    def person(self, path: str, body: object, *, cookie: str = "") -> tuple[int, dict[str, object]]:
        """A person, as the load balancer's session names them."""
        session = {"x-amzn-oidc-accesstoken": self.identity.user_token("contributor")}
        headers = {**session, "Cookie": cookie} if cookie else session
        status, answer = request(self.port, "POST", f"{_API}/{path}", body, headers=headers, role=None)
        return status, json.loads(answer)

    def runs(self, caller: str, **more: str) -> int:
        """How many runs the caller finds."""
        ask = self.program if caller == "program" else self.person
        status, found = ask("runs/search", {"experiment_ids": ["0"]}, **more)
        assert status == 200, found
        runs = found.get("runs", [])
        assert isinstance(runs, list)
        return len(runs)


@pytest.fixture(scope="module")
def server(rds: RdsLike, identity: Identity) -> Iterator[Server]:
    with deployment(rds, identity) as made, replicated() as pair:
        pair.write(
            f"CREATE ROLE {_USER} LOGIN IN ROLE rds_iam;"
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {_USER};"
            f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO {_USER}"
        )
        port = free_port()
        environ = {
            **made.environ,
            "MLFLOW_AWS_DATABASE_HOST": pair.writer.host,
            "MLFLOW_AWS_DATABASE_READER_HOST": pair.reader.host,
            # Of the experiment that is there: what is elsewhere takes no runs.
            "MLFLOW_AWS_ARTIFACT_ROOT": "s3://bucket/root",
            "MLFLOW_AWS_DATABASE_PORT": str(pair.writer.port),
            "MLFLOW_AWS_DATABASE_NAME": DATABASE,
            "MLFLOW_AWS_DATABASE_USER": _USER,
            "MLFLOW_AWS_DATABASE_CA_FILE": str(pair.ca_file),
            "MLFLOW_AWS_PORT": str(port),
        }
        process = Process([SERVER_PYTHON, "-m", "mlflow_aws_server", "serve"], env=environ)
        try:
            wait_until_ready(process, port)
            deadline = time.monotonic() + 20
            while "reader: answers" not in process.output():
                assert time.monotonic() < deadline, process.output()
                time.sleep(0.1)
            yield Server(port, identity, pair)
        finally:
            process.terminate()
            process.communicate(timeout=40)


def test_people_search_the_reader_and_programs_the_writer(server: Server) -> None:
    with server.pair.lagging():
        before = server.runs("person")
        status, answer = server.program("runs/create", {"experiment_id": "0", "start_time": 1})
        assert status == 200, answer
        assert server.runs("program") == before + 1
        assert server.runs("person") == before
        # As the browser of somebody who has just changed something.
        assert server.runs("person", cookie="mlflow-aws-changed=1") == before + 1
    server.pair.catch_up()
    assert server.runs("person") == before + 1


def test_the_reader_is_reached_with_tls_as_the_server_s_own_user(server: Server) -> None:
    server.runs("person")
    with server.pair.reader.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT usename, application_name, ssl"
            " FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE client_addr IS NOT NULL"
        )
        assert cursor.fetchall() == [(_USER, "mlflow-fast-path", True)]


def test_people_are_answered_by_the_writer_when_the_reader_is_gone(server: Server) -> None:
    before = server.runs("person")
    server.pair.reader.stop(immediate=True)
    try:
        assert server.program("runs/create", {"experiment_id": "0", "start_time": 2})[0] == 200
        assert server.runs("person") == before + 1
    finally:
        server.pair.reader.start()
