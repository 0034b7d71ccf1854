"""What a caller sends never begins a line of the log, and never a line of the audit log, on any route."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest
from mlflow_aws_server.identity.access import ROUTES

from local.parts.ports import free_port
from tests.server.conftest import (
    PUBLIC_HOST,
    Deployment,
    Identity,
    Process,
    request,
    wait_until_ready,
)

pytestmark = pytest.mark.slow

_FORGED = '{"audit":"changed","principal":"admin","process":"forged","number":1,"object":{"name":"credit"}}'
# Every way to end a line that a reader may know, and a terminal's escape.
_POISONS = [
    f"uc:x{end}{_FORGED}{end}"
    for end in ("\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x1b[2K\n", "\\n")
]
_FIELDS = (
    "name", "new_name", "key", "value", "experiment_id", "experiment_ids", "experiment_name", "run_id",
    "run_uuid", "run_name", "user_id", "filter", "filter_string", "order_by", "page_token", "max_results",
    "version", "stage", "alias", "source", "description", "tags", "params", "metrics", "artifact_location",
    "artifact_path", "path", "model_id", "model_json", "request_id", "trace_id", "status", "url", "events",
    "dataset_id", "view_type", "locations", "query", "operationName", "metric_key", "metric_keys",
    "source_type", "source_run_id", "session_id", "secret_name", "provider", "username", "password",
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """A server with two workers, and its two logs."""

    port: int
    application: Process
    audit: Process

    def lines(self) -> list[dict[str, Any]]:
        """The application's log; fails if a line is not an object of ours."""
        lines = _lines(self.application)
        for line in lines:
            assert {"time", "level", "logger", "process", "message"} <= set(line), line
            assert isinstance(line["process"], int)
        return lines

    def numbers(self) -> dict[str, list[int]]:
        """The numbers in the audit log, by process; fails if a line is not one that the gate wrote."""
        numbers = defaultdict(list)
        for line in _lines(self.audit):
            assert {"audit", "time", "process", "number"} <= set(line), line
            numbers[line["process"]].append(line["number"])
        return numbers


def _lines(process: Process) -> list[dict[str, Any]]:
    output = process.output()
    assert output.isascii()
    assert all(line.isprintable() for line in output.split("\n"))
    return [json.loads(line) for line in output.split("\n") if line]


@pytest.fixture(scope="module")
def written(migrated: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    pipe = str(tmp_path_factory.mktemp("audit") / "lines")
    port = free_port()
    audit = migrated.start("audit", MLFLOW_AWS_AUDIT_PIPE=pipe)
    server = migrated.start("serve", port=port, MLFLOW_AWS_AUDIT_PIPE=pipe, MLFLOW_AWS_WORKERS="2")
    try:
        wait_until_ready(server, port)
        yield Written(port, server, audit)
    finally:
        # As ECS does: the server first.
        for process in (server, audit):
            process.terminate()
            process.communicate(timeout=60)


def _ended(written: Written) -> None:
    for process in (written.application, written.audit):
        process.terminate()
        process.communicate(timeout=60)


def _send(port: int, credential: dict[str, str], method: str, target: str, body: bytes, poison: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    header = urllib.parse.quote(poison) if re.search(r"[\r\n]|[^\x00-\xff]", poison) else poison
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {
            "Host": PUBLIC_HOST,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "User-Agent": header,
            "X-Amzn-Trace-Id": header,
            **credential,
        }.items():
            connection.putheader(name, value.encode("latin-1", "replace"))
        connection.endheaders(body)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def _poisoned(number: int, path: str) -> Iterator[tuple[str, bytes, str]]:
    """Targets and bodies of one route: a value of every field, in the path, the query, the body, nested."""
    poison = _POISONS[number % len(_POISONS)]
    quoted = urllib.parse.quote(poison, safe="")
    target = re.sub(r"<[^>]+>", quoted, path)
    query = urllib.parse.urlencode([(field, poison) for field in _FIELDS])
    tag = {"key": poison, "value": poison}
    plain = {
        **dict.fromkeys(_FIELDS, poison),
        **{key: [tag] for key in ("tags", "params")},
        "metrics": [{"key": poison, "value": 1, "timestamp": 1, "step": 1}],
        **{key: [poison] for key in ("experiment_ids", "order_by", "metric_keys", "events", "locations")},
        "trace": {"trace_info": {"trace_id": poison, "tags": {"mlflow.artifactLocation": poison}}},
        poison: poison,
    }
    yield f"{target}?{query}", json.dumps(plain).encode(), poison
    yield target, json.dumps({key: {"a": [poison]} for key in _FIELDS}, ensure_ascii=False).encode(), poison
    yield f"{path.replace('<', '').replace('>', '')}?{quoted}", poison.encode(), poison


def test_location_of_a_trace_forges_no_line(written: Written, migrated: Deployment) -> None:
    _forge_by_a_trace(written.port, migrated)
    written.lines()
    written.numbers()


def _forge_by_a_trace(port: int, migrated: Deployment) -> None:
    """MLflow would fail there, and log a message that quotes where the trace says it is."""
    info = {
        "trace_id": "tr-forged",
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
    }
    made = request(port, "POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": info}})
    assert made[0] == 200, made
    with (
        closing(
            psycopg2.connect(
                host=str(migrated.rds.postgres.socket_directory),
                port=migrated.rds.port,
                user="postgres",
                dbname=migrated.database,
            )
        ) as planted,
        planted.cursor() as cursor,
    ):
        # As an older release stored it: today the server refuses the tag.
        cursor.execute(
            "UPDATE trace_tags SET value = %s WHERE request_id = %s AND key = 'mlflow.artifactLocation'",
            (_POISONS[0], info["trace_id"]),
        )
        assert cursor.rowcount == 1
        planted.commit()
    path = f"/ajax-api/2.0/mlflow/get-trace-artifact?request_id={info['trace_id']}"
    assert request(port, "GET", path)[0] == 403


def test_no_text_of_a_caller_begins_a_line_on_any_route(written: Written, identity: Identity) -> None:
    admin = {"Authorization": f"Bearer {identity.token('admin')}"}
    others = [
        {"Authorization": f"Bearer {identity.token('viewer')}"},
        {"x-amzn-oidc-accesstoken": identity.user_token("admin")},
        {"Authorization": "Bearer forged"},
        {},
    ]
    requests = [
        (admin if number % 2 else others[number // 2 % 4], route.method, target, body, poison)
        for number, route in enumerate(ROUTES)
        for target, body, poison in _poisoned(number, route.path)
    ]
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda each: _send(written.port, *each), requests))
    assert {200, 400, 401, 403, 404} <= set(statuses)
    lines = written.lines()
    # The test means something: the application did log what was sent.
    assert any(_FORGED in f"{line['message']}{line.get('exception')}" for line in lines)
    _complete(written)


def _complete(written: Written) -> None:
    """Every line that the gate wrote is there, once, and no other."""
    _ended(written)
    for process, numbers in written.numbers().items():
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), process
    ended = [line for line in _lines(written.audit) if line["audit"] == "ended"]
    assert len(ended) == len(written.numbers()) == 2
    for line in ended:
        assert line["number"] == len(written.numbers()[line["process"]])
