"""The real server under bodies as large as MLflow allows, and under those that are made to hurt."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Param, RunTag
from mlflow.utils import validation
from mlflow_aws_server.limits import BODY, FIELDS, NESTING, PAGE, RESOURCES, TRACES

from local.parts.ports import free_port
from tests.server.budgets.test_traces import PROTOBUF, field, spans
from tests.server.conftest import Deployment, Identity, Process, request, wait_until_ready

pytestmark = pytest.mark.slow

SMILE = "\N{GRINNING FACE}"
DEEP = "[" * 60_000
V2, AJAX = "/api/2.0/mlflow", "/ajax-api/2.0/mlflow"
_ADDRESS = "127.0.0.1"
_MEBIBYTE = 1024 * 1024


class Server:
    """The process, and what it takes."""

    def __init__(self, process: Process, port: int) -> None:
        self.process, self.port = process, port

    def peak(self) -> int:
        """The most memory that any one process of it ever held, in bytes."""
        peaks = []
        for pid in (self.process.pid, *self._children()):
            status = Path(f"/proc/{pid}/status").read_text()
            peaks.append(int(re.findall(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)[0]))
        return max(peaks) * 1024

    def forget_peak(self) -> None:
        """From now on, `peak` begins with what is held now."""
        for pid in (self.process.pid, *self._children()):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def _children(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]

    def send(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        role: str = "admin",
    ) -> tuple[int, bytes]:
        """One request with a body as it is."""
        with closing(HTTPConnection(_ADDRESS, self.port, timeout=120)) as connection:
            from tests.server.conftest import identity_made

            given = {"Host": f"{_ADDRESS}:{self.port}", "Content-Type": "application/json", **(headers or {})}
            if role:
                given["Authorization"] = f"Bearer {identity_made().token(role)}"
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return response.status, response.read()


@pytest.fixture(scope="module")
def server(migrated: Deployment) -> Iterator[Server]:
    port = free_port()
    process = migrated.start("serve", port=port, MLFLOW_AWS_PUBLIC_URL=f"https://{_ADDRESS}:{port}")
    try:
        wait_until_ready(process, port)
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def client(server: Server, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The public client of a contributor; it sees what it gets, without repeating anything."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", identity.token("contributor"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    url = f"http://{_ADDRESS}:{server.port}"
    return MlflowClient(url, url)


def test_the_largest_batch_passes(client: MlflowClient) -> None:
    run = client.create_run("0").info.run_id
    value = SMILE * validation.MAX_TAG_VAL_LENGTH
    param = SMILE * validation.MAX_PARAM_VAL_LENGTH
    client.log_batch(
        run,
        tags=[RunTag(f"tag-{number}", value) for number in range(validation.MAX_PARAMS_TAGS_PER_BATCH)],
        params=[Param(f"param-{number}", param) for number in range(validation.MAX_PARAMS_TAGS_PER_BATCH)],
    )
    data = client.get_run(run).data
    assert [data.tags[f"tag-{number}"] for number in range(100)] == [value] * 100
    assert [data.params[f"param-{number}"] for number in range(100)] == [param] * 100


def test_a_new_run_may_have_as_many_tags(client: MlflowClient) -> None:
    tags = {f"tag-{number}": SMILE * validation.MAX_TAG_VAL_LENGTH for number in range(100)}
    run = client.create_run("0", tags=tags)
    assert client.get_run(run.info.run_id).data.tags.items() >= tags.items()


def test_the_longest_values_pass(client: MlflowClient) -> None:
    # The column of a registered model is shorter than MLflow's own rule.
    text = SMILE * 5000
    client.create_registered_model("long", tags={"first": text})
    client.set_registered_model_tag("long", "second", text)
    assert client.get_registered_model("long").tags == {"first": text, "second": text}
    note = SMILE * validation.MAX_EXPERIMENT_TAG_VAL_LENGTH
    experiment = client.create_experiment("long", tags={"first": note})
    client.set_experiment_tag(experiment, "second", note)
    assert client.get_experiment(experiment).tags.items() >= {"first": note, "second": note}.items()


def test_a_data_set_with_a_large_profile_passes(client: MlflowClient) -> None:
    run = client.create_run("0").info.run_id
    row = json.dumps([1, 2.5, None] * 20)
    profile = (row * (validation.MAX_DATASET_PROFILE_SIZE // len(row) + 1))[
        : validation.MAX_DATASET_PROFILE_SIZE
    ]
    dataset = Dataset("a", "b", "local", "c", schema='"' * 100_000, profile=profile)
    client.log_inputs(run, datasets=[DatasetInput(dataset)])
    found = client.get_run(run).inputs.dataset_inputs[0].dataset
    assert (found.profile, found.schema) == (profile, dataset.schema)


def test_no_depth_makes_an_error_of_the_server(server: Server) -> None:
    documents = (DEEP, '{"a":' * 60_000, json.dumps({"tags": [], "filter": DEEP}), f'{{"name": {DEEP}')
    routes = [
        ("POST", "runs/log-batch"), ("POST", "runs/create"), ("POST", "runs/search"),
        ("POST", "runs/log-inputs"), ("POST", "runs/log-model"), ("POST", "experiments/create"),
        ("POST", "experiments/update"), ("PATCH", "registered-models/update"), ("POST", "logged-models"),
        ("PATCH", "logged-models/m-1"), ("GET", "runs/get"),
    ]  # fmt: skip
    for document in (*documents, "[" * 300_000):
        for method, route in routes:
            for prefix in (V2, AJAX):
                status, answer = server.send(method, f"{prefix}/{route}", document.encode())
                assert 400 <= status < 500, (prefix, method, route, document[:20], answer[:200])
    status, answer = server.send("POST", "/graphql", f'{{"query": "query {{}}", "variables": {DEEP}'.encode())
    assert status == 400, answer[:200]


def test_no_depth_of_json_in_a_string_makes_one_either(server: Server) -> None:
    status, answer = server.send("POST", "/api/3.0/mlflow/datasets/create", b'{"name": "deep"}')
    assert status == 200, answer
    dataset = json.loads(answer)["dataset"]["dataset_id"]
    run = json.loads(server.send("POST", f"{V2}/runs/create", b'{"experiment_id": "0"}')[1])["run"]["info"][
        "run_id"
    ]
    for path, document in (
        (f"/api/3.0/mlflow/datasets/{dataset}/records", {"records": DEEP}),
        (f"/ajax-api/3.0/mlflow/datasets/{dataset}/records", {"records": DEEP + "]" * 60_000}),
        (f"{V2}/runs/log-model", {"run_id": run, "model_json": DEEP}),
        ("/api/3.0/mlflow/datasets/create", {"name": "deeper", "tags": DEEP}),
    ):
        status, answer = server.send("POST", path, json.dumps(document).encode())
        assert status == 400, (path, answer[:200])
        assert json.loads(answer)["error_code"] == "INVALID_PARAMETER_VALUE"


def test_an_unknown_caller_cannot_fill_the_memory(server: Server) -> None:
    before = server.peak()
    piece = b" " * _MEBIBYTE
    with closing(HTTPConnection(_ADDRESS, server.port, timeout=120)) as connection:
        connection.request("GET", "/health", iter([piece] * 200), {"Host": "x"}, encode_chunked=True)
        assert connection.getresponse().status in (200, 413)
    status, _ = server.send("POST", f"{V2}/runs/log-batch", b" " * 200 * _MEBIBYTE, role="")
    assert status == 401
    assert server.peak() - before < 30 * _MEBIBYTE


BOMB = gzip.compress(b"\0" * (512 * _MEBIBYTE), compresslevel=1)
# One megabyte that MLflow would turn into two hundred million values.
RESOURCE = spans(3000, attributes=0, resource=10_000).SerializeToString()


def test_a_bomb_leaves_memory_and_others_alone(server: Server) -> None:
    headers = {"x-mlflow-experiment-id": "0", "Content-Type": PROTOBUF}
    compressed = {**headers, "Content-Encoding": "gzip"}
    before = server.peak()
    with ThreadPoolExecutor(8) as pool:
        bombs = [pool.submit(server.send, "POST", "/v1/traces", BOMB, compressed) for _ in range(8)]
        while not all(bomb.done() for bomb in bombs):
            assert request(server.port, "GET", "/health", host="x")[0] == 200
    assert {bomb.result()[0] for bomb in bombs} == {413}
    for limit, body in (
        (RESOURCES, RESOURCE),
        (FIELDS, field(1, field(2, field(2, b"\x4a\x00" * 1_000_000)))),
    ):
        status, answer = server.send("POST", "/v1/traces", body, headers)
        assert status == 400
        assert f"at most {limit.most} " in json.loads(answer)["message"]
    assert server.peak() - before < 100 * _MEBIBYTE


def test_the_most_spans_keep_nobody_waiting(server: Server) -> None:
    headers = {"x-mlflow-experiment-id": "0", "Content-Type": PROTOBUF, "Content-Encoding": "gzip"}
    body = gzip.compress(spans(2000, attributes=20).SerializeToString())
    before, answers = server.peak(), []
    exporter = threading.Thread(
        target=lambda: answers.append(server.send("POST", "/v1/traces", body, headers)), daemon=True
    )
    exporter.start()
    asked = 0
    while exporter.is_alive():
        assert request(server.port, "GET", "/health", host="x")[0] == 200
        asked += 1
    assert answers[0][0] == 200, answers
    assert asked > 1
    assert server.peak() - before < 100 * _MEBIBYTE


def test_the_largest_bodies_at_stock_are_bounded(server: Server) -> None:
    # Nothing of this is refused before MLflow has read it.
    tags = [{"key": f"key-{number}", "value": "\\ud83d" * 10_000} for number in range(200)]
    body = json.dumps({"experiment_id": "0", "name": "many", "tags": tags, "unknown": SMILE * 100}).encode()
    assert BODY.most < len(body) < TRACES.most * 4
    before = server.peak()
    with ThreadPoolExecutor(4) as pool:
        statuses = {
            each[0]
            for each in pool.map(lambda _: server.send("POST", f"{V2}/experiments/create", body), "1234")
        }
    assert statuses <= {400, 429}
    assert server.peak() - before < 300 * _MEBIBYTE
    assert NESTING.most < 1000


def test_runs_that_carry_too_much_for_one_answer_come_page_by_page(
    server: Server, migrated: Deployment, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = client.create_experiment("planted")
    migrated.rds.administer(
        "ALTER TABLE tags ALTER COLUMN value SET STORAGE EXTERNAL; "
        "INSERT INTO runs (run_uuid, name, user_id, status, start_time, lifecycle_stage, experiment_id) "
        f"SELECT md5(i::text), i, 'u', 'RUNNING', i, 'active', {experiment} FROM generate_series(1, 120) i; "
        "INSERT INTO tags (key, value, run_uuid) SELECT 't' || t, repeat('x', 8000), md5(i::text) "
        "FROM generate_series(1, 120) i, generate_series(1, 100) t RETURNING 1",
        database=migrated.database,
    )
    server.forget_peak()
    before = server.peak()
    seen: set[str] = set()
    token = ""
    while token is not None:
        body = json.dumps(
            {"experiment_ids": [experiment], "max_results": 5_000, "page_token": token}
        ).encode()
        status, answer = server.send("POST", f"{V2}/runs/search", body, role="viewer")
        assert status == 200
        page = json.loads(answer)
        seen.update(run["info"]["run_id"] for run in page["runs"])
        token = page.get("next_page_token")
    assert len(seen) == 120
    assert server.peak() - before < 150 * _MEBIBYTE
    mlflow.set_tracking_uri(f"http://{_ADDRESS}:{server.port}")
    found = mlflow.search_runs([experiment], output_format="list")
    assert [len(run.data.tags) for run in found] == [100] * 120


def test_a_search_for_versions_that_names_no_size_is_answered_page_by_page(
    server: Server, migrated: Deployment
) -> None:
    migrated.rds.administer(
        "INSERT INTO registered_models (name, creation_time) VALUES ('much', 1); "
        "INSERT INTO model_versions (name, version, creation_time, current_stage, status) "
        "SELECT 'much', i, 1, 'None', 'READY' FROM generate_series(1, 10001) i RETURNING 1",
        database=migrated.database,
    )
    path = f"{V2}/model-versions/search?filter=name%3D%27much%27"
    status, answer = server.send("GET", path, b"")
    assert status == 200
    page = json.loads(answer)
    assert len(page["model_versions"]) == PAGE.most
    status, answer = server.send("GET", f"{path}&page_token={page['next_page_token']}", b"")
    assert len(json.loads(answer)["model_versions"]) == 1
