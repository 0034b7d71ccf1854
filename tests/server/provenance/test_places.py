"""Artifacts are kept under the deployment's root only, however another place is spelt."""

from __future__ import annotations

import gzip
import json
import secrets
from collections.abc import Callable, Iterator
from unittest import mock
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.server import handlers
from mlflow.store.model_registry import sqlalchemy_store
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.provenance import ArtifactPlaces
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import RdsLike
from tests.server.provenance.harness import ROOT, Answer, Server

ARTIFACTS = "mlflow.artifactLocation"
SEALED = f"{ROOT}/sealed/churn/3/1700000000000"
ELSEWHERE = [
    "s3://other/x",
    "s3://other/root/x",
    "s3://bucket/rooted/x",
    "s3://bucket/roo",
    "s3://bucket",
    "s3://bucket/",
    "s3://bucket/root",
    "s3://bucket/root/",
    "s3://bucket/root//",
    "s3://bucket/root//x",
    "s3://bucket/root/./x",
    "s3://bucket/root/x/.",
    "s3://bucket/root/../x",
    "s3://bucket/root/x/../../y",
    "s3://bucket/root/x/..",
    "s3://bucket/root/%2e%2e/x",
    "s3://bucket/root/x%2fy",
    "s3://bucket/root/x%2f..%2f..%2fy",
    "s3://bucket/root/x%252f..%252fy",
    "s3://bucket/root/x%5c..",
    "s3://bucket/root/x\\..\\y",
    "s3://bucket/root/x?versionId=1",
    "s3://bucket/root/x%3fy",
    "s3://bucket/root/x#y",
    "s3://bucket/root/x\n",
    "s3://bucket/root/x\ty",
    "s3://bucket/root/\x7f",
    " s3://bucket/root/x",
    "s3://BUCKET/root/x",
    "S3://bucket/root/x",
    "s3://bucket/ROOT/x",
    "s3://user@bucket/root/x",
    "s3://user:secret@bucket/root/x",
    "s3://bucket:443/root/x",
    "s3://bucket./root/x",
    "s3://bucket@other/root/x",
    "s3:/bucket/root/x",
    "s3:bucket/root/x",
    "s3:///bucket/root/x",
    "s3a://bucket/root/x",
    "s3n://bucket/root/x",
    "s3+https://bucket/root/x",
    "https://bucket.s3.amazonaws.com/root/x",
    "http://169.254.169.254/latest/meta-data",
    "file:///etc",
    "file:/etc",
    "FILE:///etc",
    "/etc",
    "../../etc",
    "./x",
    "x",
    "root/x",
    "mlflow-artifacts:/x",
    "mlflow-artifacts://host/x",
    "dbfs:/x",
    "ftp://host/x",
    "sftp://host/x",
    "hdfs://host/x",
    "gs://bucket/root/x",
    "wasbs://c@a.blob.core.windows.net/root/x",
    "abfss://c@a.dfs.core.windows.net/root/x",
    "r2://bucket/root/x",
    "//bucket/root/x",
    "\\\\host\\share",
    "C:\\x",
    "s3://bucket\uff0froot/x",
    "s3://b\u00fccket/root/x",
]
SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "as it is": lambda text: text.encode(),
    "escaped": lambda text: "".join(
        rf"\u{ord(letter):04x}" if letter.isalpha() and ord(letter) < 128 and text[i - 1] != "\\" else letter
        for i, letter in enumerate(text)
    ).encode(),
    "JSON in a JSON string": lambda text: json.dumps(text).encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "given twice": lambda text: (
        text[:-1] + ', "artifact_location": "s3://other/x", "source": "s3://other/x"}'
    ).encode(),
}


def _is_refused(server: Server, path: str, body: dict[str, object], *, given: str) -> None:
    before = len(server.served)
    answer = server.send("POST", path, body)
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE"), answer.body
    message = answer.json["message"]
    assert given in message
    assert f"under {ROOT}/ only" in message
    assert "Leave it out" in message or "Log the model with this server first" in message
    assert server.served[before:] == []


@pytest.mark.parametrize("place", [*ELSEWHERE, f"{ROOT}/sealed", f"{ROOT}/sealed/x", SEALED, f"{SEALED}/"])
def test_no_experiment_is_elsewhere(server: Server, place: str) -> None:
    for field in ("artifact_location", "artifactLocation"):
        _is_refused(
            server, "experiments/create", {"name": "elsewhere", field: place}, given=repr(place)[1:-1]
        )


@pytest.mark.parametrize(
    "place",
    [
        *ELSEWHERE,
        f"{ROOT}/x/",
        f"{ROOT}/sealed",
        f"{ROOT}/sealed/churn",
        f"{ROOT}/sealed/churn/3",
        f"{ROOT}/sealed/churn/3/",
        "runs:/",
        "runs:/../x",
        "runs:/abc/../../x",
        "runs:/abc/%2e%2e/x",
        "runs://host/abc/x",
        "models:/",
        "models://host/churn/3",
        "models:///churn/3",
        "models:/../churn/3",
        "models:/churn/3?x",
        "models:/churn/3#x",
        "MODELS:/churn/3",
        "Runs:/abc/x",
        "dummy-source",
        "prompt-template",
    ],
)
def test_no_version_is_from_elsewhere(server: Server, place: str) -> None:
    server.send("POST", "registered-models/create", {"name": "places"})
    body: dict[str, object] = {"name": "places", "source": place}
    _is_refused(server, "model-versions/create", body, given=repr(place)[1:-1])
    body["tags"] = [
        {"key": "mlflow.prompt.is_prompt", "value": "true"},
        {"key": "mlflow.prompt.is_prompt", "value": "no"},
    ]
    _is_refused(server, "model-versions/create", body, given=repr(place)[1:-1])


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("experiments/create", {"name": "elsewhere", "artifact_location": "s3://other/x"}),
        ("experiments/create", {"name": "elsewhere", "artifactLocation": "s3://other/x"}),
        ("model-versions/create", {"name": "places", "source": "s3://other/x"}),
    ],
)
def test_no_spelling_of_a_request_hides_a_place(
    server: Server, path: str, body: dict[str, str], spelling: str
) -> None:
    server.send("POST", "registered-models/create", {"name": "places"})
    before = len(server.served)
    for prefix in ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow"):
        answer = server.send("POST", f"{prefix}/{path}", raw=SPELLINGS[spelling](json.dumps(body)))
        assert answer.status == 400
    assert server.served[before:] == []


@pytest.mark.parametrize(
    "place", [f"{ROOT}/team", f"{ROOT}/team/", f"{ROOT}/a b/\u00fc%20", f"{ROOT}/sealed-2", f"{ROOT}/a..b/.c"]
)
def test_experiment_may_be_anywhere_under_the_root(server: Server, name: str, place: str) -> None:
    made = server.post("experiments/create", {"name": name, "artifact_location": place})
    run = server.new_run(experiment_id=made["experiment_id"])
    found = server.send("GET", "runs/get", query=f"run_id={run}").json["run"]["info"]["artifact_uri"]
    assert found == f"{place.rstrip('/')}/{run}/artifacts"


@pytest.mark.parametrize("location", [{}, {"artifact_location": ""}, {"artifact_location": None}])
def test_experiment_without_a_place_is_under_the_root(
    server: Server, name: str, location: dict[str, object]
) -> None:
    made = server.post("experiments/create", {"name": name, **location})["experiment_id"]
    found = server.send("GET", "experiments/get", query=f"experiment_id={made}").json["experiment"]
    assert found["artifact_location"] == f"{ROOT}/{made}"


def test_version_may_be_from_under_the_root_or_another_version(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    server.post("registered-models/alias", {"name": name, "alias": "champion", "version": "1"})
    run = server.new_run()
    logged = server.post("logged-models", {"experiment_id": "0"})["model"]["info"]["model_id"]
    forms: list[dict[str, str]] = [
        {"source": f"{ROOT}/0/{run}/artifacts/my model"},
        {"source": SEALED},
        {"source": f"{SEALED}/data"},
        {"source": f"models:/{name}/1"},
        {"source": f"models:/{name}@champion"},
        {"source": f"models:/{name}/latest"},
        {"source": f"runs:/{run}/model", "run_id": run},
    ]
    for form in forms:
        server.post("model-versions/create", {"name": name, **form})
    body = {"name": name, "source": f"models:/{logged}", "model_id": logged}
    with mock.patch.object(sqlalchemy_store, "MlflowClient", return_value=handlers._tracking_store):
        server.post("model-versions/create", body)


def _logged_model(server: Server, run: str) -> str:
    body = {"experiment_id": "0", "source_run_id": run}
    return str(server.post("logged-models", body)["model"]["info"]["model_id"])


@pytest.mark.parametrize(
    "source",
    [
        f"{ROOT}/0/{{other}}/artifacts/model",
        f"{ROOT}/0/{{run}}/artifacts-of-mine/model",
        f"{ROOT}/0/models/m-0123456789abcdef0123456789abcdef/artifacts",
        SEALED,
        "models:/{model}",
    ],
)
def test_version_s_run_is_the_one_that_logged_its_files(server: Server, name: str, source: str) -> None:
    server.new_model(name, versions=0)
    run, other = server.new_run(), server.new_run()
    given = source.format(run=run, other=other, model=_logged_model(server, other))
    with mock.patch.object(sqlalchemy_store, "MlflowClient", return_value=handlers._tracking_store):
        body = {"name": name, "source": given, "run_id": run}
        model = {"model_id": given.removeprefix("models:/")} if given.startswith("models:") else {}
        answer = server.send("POST", "model-versions/create", {**body, **model})
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")
    assert run in answer.json["message"]
    assert "leave `run_id` out" in answer.json["message"]
    assert server.send("GET", "model-versions/get", query=f"name={name}&version=1").status == 404


def test_version_of_a_run_that_does_not_exist_is_refused(server: Server, name: str) -> None:
    server.new_model(name, versions=0)
    run = secrets.token_hex(16)
    body = {"name": name, "source": f"{ROOT}/0/{run}/artifacts/model", "run_id": run}
    assert server.send("POST", "model-versions/create", body).status == 400


def test_version_may_be_of_what_its_run_logged(server: Server, name: str) -> None:
    server.new_model(name, versions=0)
    run = server.new_run()
    model = _logged_model(server, run)
    forms = [
        {"source": f"{ROOT}/0/{run}/artifacts"},
        {"source": f"{ROOT}/0/{run}/artifacts/model"},
        {"source": f"{ROOT}/0/models/{model}/artifacts"},
        {"source": f"{ROOT}/0/models/{model}/artifacts", "model_id": model},
        {"source": f"models:/{name}/2"},
    ]
    for form in forms:
        made = server.post("model-versions/create", {"name": name, **form, "run_id": run})
        assert made["model_version"]["run_id"] == run


def test_prompt_s_placeholder_is_no_place(server: Server, name: str) -> None:
    tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    server.post("registered-models/create", {"name": name, "tags": tags})
    server.post("model-versions/create", {"name": name, "source": "dummy-source", "tags": tags})
    for source in ("s3://other/x", "file:///etc", f"{ROOT}/x"):
        body = {"name": name, "source": source, "tags": tags}
        assert server.send("POST", "model-versions/create", body).status == 400


class Elsewhere:
    """An experiment with a run and a version in another bucket, from before this server refused that."""

    def __init__(self, server: Server, rds: RdsLike, name: str) -> None:
        self.experiment = str(server.post("experiments/create", {"name": name})["experiment_id"])
        self.run = server.new_run(experiment_id=self.experiment)
        self.model = server.new_model(name, versions=1)
        for statement in (
            f"UPDATE experiments SET artifact_location = 's3://other/x' WHERE name = '{name}'",
            f"UPDATE runs SET artifact_uri = 's3://other/x/a' WHERE run_uuid = '{self.run}'",
            f"UPDATE model_versions SET storage_location = 's3://other/x/m' WHERE name = '{name}'",
        ):
            rds.administer(statement, database=server.database)
        # Another server: this one has seen where the experiment was.
        self.server = server.another()


@pytest.fixture
def elsewhere(server: Server, rds: RdsLike, name: str) -> Iterator[Elsewhere]:
    made = Elsewhere(server, rds, name)
    yield made
    server.loop.run_until_complete(made.server.fast_path.shutdown())


def test_experiment_that_is_elsewhere_already_is_readable(elsewhere: Elsewhere) -> None:
    server, run = elsewhere.server, elsewhere.run
    assert server.send("GET", "runs/get", query=f"run_id={run}").status == 200
    assert server.post("runs/search", {"experiment_ids": [elsewhere.experiment]})["runs"]
    server.post("runs/log-batch", {"run_id": run, "params": [{"key": "p", "value": "1"}]})


@pytest.mark.parametrize("path", ["runs/create", "logged-models"])
@pytest.mark.parametrize("spelling", ["{}", "0{}", " {} ", "+{}"])
def test_nothing_new_is_made_in_it(elsewhere: Elsewhere, path: str, spelling: str) -> None:
    before = len(elsewhere.server.served)
    answer = elsewhere.server.send("POST", path, {"experiment_id": spelling.format(elsewhere.experiment)})
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "create a new experiment" in answer.json["message"]
    assert elsewhere.server.served[before:] == []


def test_experiment_is_looked_up_once(server: Server, name: str) -> None:
    experiment = server.post("experiments/create", {"name": name})["experiment_id"]
    with mock.patch.object(ConnectionPool, "run", autospec=True, side_effect=ConnectionPool.run) as asked:
        server.new_run(experiment_id=experiment)
        first = asked.call_count
        server.new_run(experiment_id=experiment)
        assert (first, asked.call_count - first) == (2, 1)


@pytest.mark.parametrize("experiment", ["999999", "x", str(2**40), "-1"])
def test_experiment_that_is_none_is_mlflow_s_to_refuse(server: Server, experiment: str) -> None:
    answer = server.send("POST", "runs/create", {"experiment_id": experiment})
    assert answer.status in (400, 404, 500)
    assert "artifact_location" not in answer.json["message"]


def _trace(server: Server, **tags: str) -> tuple[str, Answer]:
    trace = f"tr-{secrets.token_hex(16)}"
    info = {
        "trace_id": trace,
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
        "tags": tags,
    }
    return trace, server.send("POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": info}})


def _exported(trace: str, **tags: str) -> ExportTraceServiceRequest:
    exported = ExportTraceServiceRequest()
    span = exported.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = bytes.fromhex(trace[3:]), b"12345678", "root"
    span.start_time_unix_nano, span.end_time_unix_nano = 10**18, 10**18 + 1
    for key, value in tags.items():
        span.attributes.add(key=f"mlflow.traceTag.{key}").value.string_value = value
    return exported


def _location(server: Server, trace: str) -> str | None:
    answer = server.send("GET", f"/api/3.0/mlflow/traces/{trace}")
    return answer.json["trace"]["trace_info"]["tags"].get(ARTIFACTS) if answer.status == 200 else None


@pytest.mark.parametrize("tag", [ARTIFACTS, "mlflow.trace.archiveLocation"])
@pytest.mark.parametrize("place", ["s3://other/x", "file:///etc", f"{ROOT}/../x", SEALED, ""])
def test_no_trace_begins_elsewhere(server: Server, tag: str, place: str) -> None:
    trace, answer = _trace(server, **{tag: place})
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")
    assert f"under {ROOT}/ only" in answer.json["message"]
    assert _location(server, trace) is None


@pytest.mark.parametrize(
    "path", ["/api/3.0/mlflow/traces/{}/tags", "/ajax-api/3.0/mlflow/traces/{}/tags", "traces/{}/tags"]
)
@pytest.mark.parametrize("spelling", ["as it is", "escaped", "JSON in a JSON string", "UTF-16"])
def test_no_trace_s_tag_leads_elsewhere(server: Server, path: str, spelling: str) -> None:
    trace, _ = _trace(server)
    here = _location(server, trace)
    assert here is not None
    assert here.startswith(f"{ROOT}/0/traces/")
    body = json.dumps({"key": ARTIFACTS, "value": "s3://other/x"})
    answer = server.send("PATCH", path.format(trace), raw=SPELLINGS[spelling](body))
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "s3://other/x" in answer.json["message"]
    assert _location(server, trace) == here
    assert server.send("PATCH", path.format(trace), {"key": ARTIFACTS, "value": here}).status == 200


def test_no_old_client_s_trace_is_elsewhere(server: Server) -> None:
    tags = [{"key": ARTIFACTS, "value": "s3://other/x"}]
    begun = {"experiment_id": "0", "timestamp_ms": 1, "request_metadata": [], "tags": tags}
    assert server.send("POST", "traces", begun).status >= 400
    trace = server.post("traces", {**begun, "tags": []})["trace_info"]["request_id"]
    ended = {"request_id": trace, "timestamp_ms": 2, "status": "OK", "request_metadata": [], "tags": tags}
    answer = server.send("PATCH", f"traces/{trace}", ended)
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")


EXPORTS: dict[str, Callable[[ExportTraceServiceRequest], tuple[bytes, dict[str, str]]]] = {
    "protobuf": lambda exported: (exported.SerializeToString(), {}),
    "protobuf, compressed": lambda exported: (
        gzip.compress(exported.SerializeToString()),
        {"content-encoding": "gzip"},
    ),
    "JSON": lambda exported: (
        json.dumps(
            {
                "resourceSpans": [
                    {
                        "scopeSpans": [
                            {
                                "spans": [
                                    {
                                        "traceId": span.trace_id.hex(),
                                        "spanId": span.span_id.hex(),
                                        "name": span.name,
                                        "startTimeUnixNano": str(span.start_time_unix_nano),
                                        "endTimeUnixNano": str(span.end_time_unix_nano),
                                        "attributes": [
                                            {"key": a.key, "value": {"stringValue": a.value.string_value}}
                                            for a in span.attributes
                                        ],
                                    }
                                    for span in exported.resource_spans[0].scope_spans[0].spans
                                ]
                            }
                        ]
                    }
                ]
            }
        )
        .replace("artifactLocation", r"\u0061rtifactLocation")
        .encode(),
        {"content-type": "application/json"},
    ),
}


@pytest.mark.parametrize("encoding", EXPORTS)
def test_no_exported_trace_leads_elsewhere(server: Server, encoding: str) -> None:
    trace, _ = _trace(server)
    here = _location(server, trace)
    for tags, status in (({"fine": "x"}, 200), ({ARTIFACTS: "s3://other/x"}, 400)):
        body, headers = EXPORTS[encoding](_exported(trace, **tags))
        answer = server.send(
            "POST",
            "/v1/traces",
            raw=body,
            headers={"content-type": "application/x-protobuf", "x-mlflow-experiment-id": "0", **headers},
        )
        assert answer.status == status, answer.body
    assert answer.code == "INVALID_PARAMETER_VALUE"
    assert f"under {ROOT}/ only" in answer.json["message"]
    assert _location(server, trace) == here


@pytest.mark.parametrize("form", ["models:/{model}/1", "models:/{model}/latest", "runs:/{run}/model"])
def test_version_refers_to_nothing_elsewhere(elsewhere: Elsewhere, form: str) -> None:
    source = form.format(model=elsewhere.model, run=elsewhere.run)
    body = {"name": elsewhere.model, "source": source}
    if form.startswith("runs:"):
        body["run_id"] = elsewhere.run
    answer = elsewhere.server.send("POST", "model-versions/create", body)
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")
    assert "s3://other/x" in answer.json["message"]
    assert f"under {ROOT}/ only" in answer.json["message"]
    query = f"name={elsewhere.model}&version=2"
    assert elsewhere.server.send("GET", "model-versions/get", query=query).status == 404


_PIECES = [*"abrot/.%\\?#:@;s3SB", "..", "%2e", "%2F", "%25", "//", "bucket", "root", "sealed"]
_TEXT = st.lists(st.sampled_from(_PIECES), max_size=12).map("".join)


@given(
    st.one_of(
        _TEXT,
        _TEXT.map(lambda tail: f"{ROOT}/{tail}"),
        _TEXT.map(lambda tail: quote(f"{ROOT}/{tail}")),
        st.text(max_size=20).map(lambda tail: f"{ROOT}/{tail}"),
    )
)
def test_what_is_accepted_is_under_the_root_to_every_reader(uri: str) -> None:
    places = ArtifactPlaces(ROOT)
    for holds in (places.holds, places.holds_model):
        if holds(uri):
            parts = urlsplit(uri)
            assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("s3", "bucket", "", "")
            assert parts.path.startswith("/root/")
            assert uri == f"s3://bucket{parts.path}"
            plain = _plain(parts.path)
            assert not {"..", "."} & set(plain.split("/"))
            assert "\\" not in plain
            assert "//" not in plain
            assert plain.startswith("/root/")
            assert plain.strip("/").split("/")[1:2] != ["sealed"] or holds == places.holds_model


def _plain(path: str) -> str:
    while (decoded := unquote(path)) != path:
        path = decoded
    return path


@given(st.lists(st.from_regex(r"[A-Za-z0-9_ =+~-][A-Za-z0-9_. =+~-]{0,10}", fullmatch=True), min_size=1))
def test_every_plain_path_under_the_root_is_accepted(parts: list[str]) -> None:
    if parts[0] == "sealed":
        parts = ["a", *parts]
    for root in ("s3://bucket/root", "s3://bucket/root/", "s3://bucket"):
        uri = "/".join((root.rstrip("/"), *parts))
        assert ArtifactPlaces(root).holds(uri)
        assert ArtifactPlaces(root).holds_model(uri)
