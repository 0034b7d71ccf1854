"""The real server: started as the container starts it, against PostgreSQL with TLS."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import psycopg2
import pytest

from local.parts.ports import free_port
from tests.conftest import RdsLike
from tests.server.conftest import (
    PUBLIC_HOST,
    Deployment,
    Identity,
    Migration,
    Process,
    deployment,
    request,
    wait_until_ready,
)

_API = "/api/2.0/mlflow"
_METRICS = "/api/2.0/mlflow-aws/metrics"
_BATCH = 25


@dataclass(frozen=True)
class Server:
    process: Process
    port: int
    deployment: Deployment
    audit: Process | None = None

    def call(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        status, answer = request(self.port, "POST", f"{_API}/{path}", body)
        assert status == 200, answer
        made: dict[str, object] = json.loads(answer)
        return made

    def family(self) -> list[int]:
        """The process and everything it has started that runs still."""
        found, ahead = [], [self.process.pid]
        while ahead:
            pid = ahead.pop()
            # A process or a thread may end while one looks.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if _status(pid, "State").startswith(("Z", "X")):
                    continue
                found.append(pid)
                for task in Path(f"/proc/{pid}/task").iterdir():
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                        ahead += map(int, (task / "children").read_text().split())
        return found


def _status(pid: int, name: str) -> str:
    status = Path(f"/proc/{pid}/status").read_text()
    return str(re.findall(rf"^{name}:\s+(.+)$", status, re.MULTILINE)[0])


def _parent(pid: int) -> int:
    """The process that started it; 0 if it has ended meanwhile."""
    try:
        return int(_status(pid, "PPid"))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def server(migrated: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    pipe = str(tmp_path_factory.mktemp("audit") / "lines")
    audit = migrated.start("audit", MLFLOW_AWS_AUDIT_PIPE=pipe)
    process = migrated.start("serve", port=port, MLFLOW_AWS_WORKERS="2", MLFLOW_AWS_AUDIT_PIPE=pipe)
    try:
        wait_until_ready(process, port)
        yield Server(process, port, migrated, audit)
    finally:
        _stop(process)
        _stop(audit)


@pytest.fixture
def unshared(rds: RdsLike, identity: Identity, migration: Migration) -> Iterator[Deployment]:
    """A migrated database in which no other server has connections."""
    with deployment(rds, identity, copy_of=migration) as made:
        yield made


def test_ready_is_hidden_from_the_world(server: Server) -> None:
    assert request(server.port, "GET", "/ready", headers={"X-Forwarded-For": "203.0.113.9"}) == (404, b"")


def test_balancer_may_ask_by_address(server: Server) -> None:
    _until(server.port, 200, host="10.0.0.7:5000")


def test_container_health_check_passes(server: Server) -> None:
    # Whichever worker is asked: the other one may be ready a moment later.
    while server.deployment.start("healthcheck", port=server.port).wait(20) != 0:
        time.sleep(0.2)


def test_other_hosts_are_refused(server: Server) -> None:
    path = f"{_API}/experiments/get?experiment_id=0"
    assert request(server.port, "GET", path)[0] == 200
    assert request(server.port, "GET", path, host="evil.example")[0] == 403


def test_user_interface_may_post_from_the_public_origin_only(server: Server) -> None:
    body = {"max_results": 1}
    path = "/ajax-api/2.0/mlflow/experiments/search"
    ours = request(server.port, "POST", path, body, headers={"Origin": "https://mlflow.example.com"})
    other = request(server.port, "POST", path, body, headers={"Origin": "https://evil.example"})
    assert (ours[0], other[0]) == (200, 403)


def test_user_interface_is_in_the_image(server: Server) -> None:
    status, page = request(server.port, "GET", "/")
    assert status == 200
    assert b"<title>MLflow</title>" in page


def test_graphql_answers(server: Server) -> None:
    query = {
        "operationName": "MlflowGetExperimentQuery",
        "query": "query MlflowGetExperimentQuery($input: MlflowGetExperimentInput!) "
        "{ mlflowGetExperiment(input: $input) { experiment { experimentId name } } }",
        "variables": {"input": {"experimentId": "0"}},
    }
    status, answer = request(server.port, "POST", "/graphql", query)
    assert status == 200
    assert json.loads(answer)["data"]["mlflowGetExperiment"]["experiment"]["name"] == "Default"


def test_registry_answers(server: Server) -> None:
    name = {"name": "model-of-process-test"}
    server.call("registered-models/create", name)
    status, answer = request(server.port, "GET", f"{_API}/registered-models/get?name=model-of-process-test")
    assert status == 200
    assert json.loads(answer)["registered_model"]["name"] == name["name"]


def test_new_runs_keep_their_artifacts_in_the_bucket(server: Server) -> None:
    run = server.call("runs/create", {"experiment_id": "0", "start_time": 1})["run"]
    assert run["info"]["artifact_uri"].startswith("s3://example-artifacts/runs/0/")  # type: ignore[index]


def test_a_request_without_an_identity_is_refused(server: Server) -> None:
    assert request(server.port, "GET", "/health", role=None)[0] == 200
    for method, path in (("GET", "/"), ("GET", "/version"), ("POST", "/graphql"), ("POST", "/v1/traces")):
        assert request(server.port, method, path, role=None)[0] == 401
    status, answer = request(server.port, "POST", f"{_API}/runs/create", {}, role="viewer")
    assert (status, json.loads(answer)["error_code"]) == (403, "PERMISSION_DENIED")


def test_person_gets_in_with_what_the_balancer_forwards(server: Server, identity: Identity) -> None:
    forwarded = {"x-amzn-oidc-accesstoken": identity.user_token("viewer")}
    status, answer = request(
        server.port, "GET", "/ajax-api/2.0/mlflow-aws/whoami", role=None, headers=forwarded
    )
    assert status == 200
    assert json.loads(answer)["principal"] == "cognito:someone"


@pytest.mark.parametrize(
    ("role", "said"),
    [
        (None, "UNAUTHENTICATED: This MLflow server needs to know who you are. Programs: pip install"),
        ("viewer", r"PERMISSION_DENIED: POST /api/2\.0/mlflow/experiments/create needs the role contributor"),
    ],
)
def test_stock_client_prints_why_it_is_refused(
    server: Server, identity: Identity, monkeypatch: pytest.MonkeyPatch, role: str | None, said: str
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    if role is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", identity.token(role))
    client = mlflow.MlflowClient(f"http://127.0.0.1:{server.port}")
    with pytest.raises(MlflowException, match=said):
        client.create_experiment("refused")


def test_audit_lines_go_to_a_log_of_their_own_and_others_do_not(server: Server) -> None:
    assert server.audit is not None
    run = started_run(server)
    server.call("runs/set-tag", {"run_id": run, "key": "k", "value": "not for the log"})
    tagged: list[dict[str, object]] = []
    deadline = time.monotonic() + 60
    # What a caller knows of is in the pipe; its reader may be behind.
    while not tagged and time.monotonic() < deadline:
        lines = [json.loads(line) for line in server.audit.output().splitlines()]
        tagged = [
            line for line in lines if line.get("object") == {"run_id": run} and "set-tag" in line["route"]
        ]
    assert [(line["principal"], line["status"]) for line in tagged] == [
        ("arn:aws:iam::123456789012:role/mlflow-admin", 200)
    ]
    assert all({"audit", "process", "number"} <= set(line) for line in lines)
    application = server.process.output()
    assert all("logger" in json.loads(line) for line in application.splitlines())
    for log in (application, server.audit.output()):
        assert "not for the log" not in log
        assert "eyJ" not in log


class _Bucket(http.server.BaseHTTPRequestHandler):
    """S3's answer to a listing; remembers who asked."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        prefix = parse_qs(urlsplit(self.path).query)["prefix"][0]
        body = (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>false</IsTruncated><Contents><Key>{prefix}plot.png</Key><Size>42</Size></Contents>"
            "</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_user_interface_lists_the_bucket_with_the_server_s_role(migrated: Deployment) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Bucket) as bucket:
        threading.Thread(target=bucket.serve_forever, daemon=True).start()
        port = free_port()
        process = migrated.start(
            "serve", port=port, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{bucket.server_port}"
        )
        try:
            wait_until_ready(process, port)
            server = Server(process, port, migrated)
            run_id = started_run(server)
            status, answer = request(port, "GET", f"/ajax-api/2.0/mlflow/artifacts/list?run_id={run_id}")
        finally:
            _stop(process)
            bucket.shutdown()
    assert status == 200, answer
    assert json.loads(answer)["files"] == [{"path": "plot.png", "is_dir": False, "file_size": 42}]
    path, authorization = _Bucket.asked[-1]
    assert path.startswith("/example-artifacts")
    assert "Credential=ASIAEXAMPLEEXAMPLE/" in authorization
    assert "/eu-central-1/s3/aws4_request" in authorization


def test_artifacts_do_not_pass_through_the_server(server: Server) -> None:
    for prefix in ("/api", "/ajax-api"):
        status, _ = request(server.port, "GET", f"{prefix}/2.0/mlflow-artifacts/artifacts/any")
        assert status >= 400


def test_concurrent_batches_on_stock_mlflow_do_not_starve_each_other(unshared: Deployment) -> None:
    port = free_port()
    process = unshared.start(
        "serve", port=port, MLFLOW_AWS_FAST_PATH="off", MLFLOW_AWS_DATABASE_MAX_CONNECTIONS="16"
    )
    try:
        wait_until_ready(process, port)
        server = Server(process, port, unshared)
        run = started_run(server)
        statuses: list[int] = []

        def write(number: int) -> None:
            for step in range(5):
                metrics = [{"key": f"m{number}", "value": step, "timestamp": 1, "step": step}]
                body = {"run_id": run, "metrics": metrics}
                statuses.append(request(port, "POST", f"{_API}/runs/log-batch", body)[0])

        _together(write, 30)
        assert statuses == [200] * 150
        assert _connections(unshared) <= 16
    finally:
        _stop(process)


def test_no_process_but_the_supervisor_and_two_workers(server: Server) -> None:
    family = server.family()
    workers = [pid for pid in family if _parent(pid) == server.process.pid]
    assert sorted(family) == sorted([server.process.pid, *workers])
    assert len(workers) == 2


def test_a_worker_that_dies_is_replaced(server: Server) -> None:
    def workers() -> list[int]:
        return [pid for pid in server.family() if _parent(pid) == server.process.pid]

    victim = workers()[0]
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (victim in (now := workers()) or len(now) < 2):
        time.sleep(0.1)
    assert victim not in workers()
    assert len(workers()) == 2


def test_metrics_are_those_of_the_whole_task_also_after_a_worker_died(server: Server) -> None:
    """Of two processes, whichever answers."""
    path = f"{_API}/registered-models/get-latest-versions"

    def counted(code: int = 404) -> int:
        text = request(server.port, "GET", _METRICS)[1].decode()
        series = f'method="GET",route="{path}",lane="iam",role="admin",code="{code}"'
        found = re.findall(rf"^mlflow_aws_requests_total{{{re.escape(series)}}} (\d+)$", text, re.MULTILINE)
        return sum(map(int, found))

    def until(number: int) -> None:
        deadline = time.monotonic() + 60
        # Each answer is of one process, and of the other some seconds ago.
        while [counted() for _ in range(4)] != [number] * 4 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert [counted() for _ in range(4)] == [number] * 4

    for _ in range(20):
        assert request(server.port, "GET", f"{path}?name=none")[0] == 404
    until(20)
    workers = [pid for pid in server.family() if _parent(pid) == server.process.pid]
    os.kill(workers[0], signal.SIGKILL)
    answering, deadline = workers[0], time.monotonic() + 60
    while answering in workers and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionError):
            whoami = request(server.port, "GET", "/api/2.0/mlflow-aws/whoami")[1]
            answering = json.loads(whoami)["process"]
    # The one that took its place counts on.
    until(20)
    text = request(server.port, "GET", _METRICS)[1].decode()
    for said in (
        'fast_path_serving{process="0"} 1',
        'state{process="1",fast_path="serving",schema="current"',
    ):
        assert f"mlflow_aws_{said}" in text
    for name in ("oldest_transaction_seconds", "sealing_backlog", "sealing_failed", "keys_age_seconds"):
        assert re.search(rf'^mlflow_aws_{name}{{process="\d"}} [\d.]+$', text, re.MULTILINE)


def test_workers_share_the_memory_that_mlflow_needs(server: Server) -> None:
    def proportional_and_resident(pid: int) -> tuple[int, int]:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = dict(re.findall(r"^(Pss|Rss):\s+(\d+) kB", rollup, re.MULTILINE))
        return int(found["Pss"]), int(found["Rss"])

    sizes = [proportional_and_resident(pid) for pid in server.family()]
    assert sum(pss for pss, _ in sizes) < 0.6 * sum(rss for _, rss in sizes)


def test_no_argument_or_variable_of_any_process_holds_a_database_secret(server: Server) -> None:
    for pid in server.family():
        arguments = Path(f"/proc/{pid}/cmdline").read_text()
        environ = Path(f"/proc/{pid}/environ").read_text()
        for text in (arguments, environ):
            assert "X-Amz" not in text
            assert server.deployment.rds.master_password not in text
        assert "PASSWORD" not in environ.upper()
        # The test's stand-in for a role; at ECS an endpoint gives the role's credentials.
        assert "example-of-a-role-s-secret" not in arguments


def test_worker_connections_stay_within_the_task_s_share(server: Server) -> None:
    _together(lambda _: request(server.port, "POST", "/ajax-api/2.0/mlflow/experiments/search", {}), 40)
    assert _connections(server.deployment) <= 40


def test_database_outage_makes_the_server_unready_and_is_survived(server: Server) -> None:
    made = server.deployment
    database = made.database
    made.rds.administer(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    try:
        made.rds.administer(
            f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}'"
        )
        _until(server.port, 503)
        # Each worker may repeat its own last answer for some seconds, and either of them may be asked.
        while made.start("healthcheck", port=server.port).wait(20) == 0:
            time.sleep(0.2)
    finally:
        made.rds.administer(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    _until(server.port, 200)
    assert server.call("experiments/search", {"max_results": 1})["experiments"]


@pytest.mark.parametrize("fast_path", ["on", "off"])
@pytest.mark.slow
def test_sigterm_finishes_running_requests_and_loses_no_acknowledged_write(
    migrated: Deployment, fast_path: str
) -> None:
    port = free_port()
    process = migrated.start(
        "serve",
        port=port,
        MLFLOW_AWS_FAST_PATH=fast_path,
        MLFLOW_AWS_WORKERS="2",
        MLFLOW_AWS_DEPLOYMENT="a-stack",
    )
    try:
        wait_until_ready(process, port)
        server = Server(process, port, migrated)
        run = started_run(server)
        acknowledged: list[str] = []
        refused: list[int] = []
        enough = threading.Event()

        def write(number: int) -> None:
            for step in range(100_000):
                key = f"{fast_path}-{number}-{step}"
                metrics = [{"key": key, "value": 1, "timestamp": 1, "step": i} for i in range(_BATCH)]
                try:
                    status, _ = request(
                        port, "POST", f"{_API}/runs/log-batch", {"run_id": run, "metrics": metrics}
                    )
                except (OSError, http.client.HTTPException):
                    # The connection ended without an answer: not acknowledged.
                    return
                if status != 200:
                    refused.append(status)
                    return
                acknowledged.append(key)
                if len(acknowledged) > 25:
                    enough.set()

        writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for writer in writers:
            writer.start()
        assert enough.wait(60)
        with _held_up(server, started_run(server)) as running:
            process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
        assert running == [200]
        for writer in writers:
            writer.join(60)
        log = process.communicate(timeout=40)[0]
    finally:
        _stop(process)
    minutes = [line for line in map(json.loads, log.splitlines()) if line.get("Deployment") == "a-stack"]
    assert len({line["process"] for line in minutes}) == 2
    # And two runs that were started, and the batch that was held up.
    assert sum(line["Requests"] for line in minutes) >= len(acknowledged) + 3
    counted = f"SELECT key, count(*) FROM metrics WHERE run_uuid = '{run}' GROUP BY key"
    stored = {row[0]: row[1] for row in migrated.rds.administer(counted, database=migrated.database)}
    assert acknowledged
    assert {key: stored.get(key) for key in acknowledged} == dict.fromkeys(acknowledged, _BATCH)
    # A batch is stored as a whole or not at all, acknowledged or not.
    assert set(stored.values()) == {_BATCH}
    assert not refused, "a server that stops finishes what it has accepted"


@pytest.mark.slow
def test_two_servers_and_two_migrations_start_together_on_an_empty_database(
    rds: RdsLike, identity: Identity
) -> None:
    with deployment(rds, identity) as empty:
        ports = [free_port(), free_port()]
        servers = [empty.start("serve", port=port) for port in ports]
        migrations = [empty.start("migrate"), empty.start("migrate")]
        try:
            outputs = [migration.communicate(timeout=120)[0] for migration in migrations]
            assert [migration.returncode for migration in migrations] == [0, 0], outputs
            for server, port in zip(servers, ports, strict=True):
                wait_until_ready(server, port)
                assert request(port, "GET", f"{_API}/experiments/get?experiment_id=0")[0] == 200
            # Waiting cost the servers no restart: these are the processes started before the schema.
            assert [server.poll() for server in servers] == [None, None]
        finally:
            for server in servers:
                server.terminate()
            logs = [server.communicate(timeout=40)[0] for server in servers]
        for log in logs:
            assert "Traceback" not in log
            assert '"waiting"' in log


def started_run(server: Server) -> str:
    run = server.call("runs/create", {"experiment_id": "0", "start_time": 1})["run"]
    return str(run["info"]["run_id"])  # type: ignore[index]


@contextmanager
def _held_up(server: Server, run: str) -> Iterator[list[int]]:
    """A log-batch that the database holds up until the block ends; yields what will be its status."""
    made = server.deployment
    statuses: list[int] = []
    blocker = psycopg2.connect(
        host=str(made.rds.postgres.socket_directory),
        port=made.rds.port,
        user="postgres",
        dbname=made.database,
    )

    def write() -> None:
        body = {"run_id": run, "metrics": [{"key": "held-up", "value": 1, "timestamp": 1, "step": 0}]}
        statuses.append(request(server.port, "POST", f"{_API}/runs/log-batch", body)[0])

    writer = threading.Thread(target=write)
    try:
        with blocker.cursor() as cursor:
            cursor.execute("SELECT 1 FROM runs WHERE run_uuid = %s FOR UPDATE", (run,))
        writer.start()
        waiting = f"datname = '{made.database}' AND wait_event_type = 'Lock'"
        while not made.rds.administer(f"SELECT 1 FROM pg_stat_activity WHERE {waiting}"):
            time.sleep(0.05)
        yield statuses
    finally:
        blocker.close()
        writer.join(60)


def _together(work: Callable[[int], object], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)


def _connections(made: Deployment) -> int:
    (row,) = made.rds.administer(
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{made.database}' "
        f"AND usename = '{made.server_user}'"
    )
    assert isinstance(row[0], int)
    return row[0]


def _until(port: int, status: int, *, host: str = PUBLIC_HOST) -> None:
    deadline = time.monotonic() + 60
    seen: object = None
    while time.monotonic() < deadline:
        # A worker that ends takes the connections along that it had not answered yet.
        with contextlib.suppress(ConnectionError):
            seen = request(port, "GET", "/ready", host=host)[0]
        if seen == status:
            return
        time.sleep(0.2)
    pytest.fail(f"/ready still says {seen} instead of {status}")
