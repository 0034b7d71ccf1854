"""What is in the database meanwhile: one of each kind, so that requests lead deep into the code."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections import Counter
from typing import Any

from mlflow_aws_server.identity.access import route_of
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.object_store import ObjectStore
from tests.server.conftest import Identity, request

_V2, _V3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
_NAMES = {
    "/registered-models/": "$model_name",
    "/model-versions/": "$model_name",
    "/datasets/": "$dataset_name",
    "/review-queues/": "$queue_name",
    "/label-schemas/": "$label_name",
    "/scorers/": "$scorer",
}
_WORD = re.compile(r"\$[a-z_]+")


class World:
    """Objects of MLflow and their ids, under the words that stand for them in tests/fuzz/document.py."""

    def __init__(self, port: int, store: ObjectStore) -> None:
        self._port = port
        self._store = store
        self._numbers = itertools.count(1)
        self._ids: dict[str, str] = {}
        self.changes: Counter[str] = Counter()
        """The requests that changed something, by route: each leaves a line in the audit log."""
        self.build()

    def build(self) -> None:
        """Make new ones: somebody may have deleted the last."""
        n = next(self._numbers)
        names = {
            word: f"{word}-{n}" for word in ("experiment_name", "model_name", "dataset_name", "queue_name")
        }
        made = self._call("POST", f"{_V2}/experiments/create", {"name": names["experiment_name"]})
        experiment = made["experiment_id"]
        run = self._call("POST", f"{_V2}/runs/create", {"experiment_id": experiment})["run"]["info"]
        run_id = run["run_id"]
        self._call(
            "POST",
            f"{_V2}/runs/log-batch",
            {
                "run_id": run_id,
                "metrics": [
                    {"key": "m", "value": step, "timestamp": step, "step": step} for step in range(5)
                ],
                "params": [{"key": "p", "value": "1"}],
                "tags": [{"key": "k", "value": "v"}],
            },
        )
        bucket, _, prefix = f"{run['artifact_uri']}/model".removeprefix("s3://").partition("/")
        assert bucket == self._store.bucket
        source = self._store.write_model(prefix, {"MLmodel": b"flavors: {}\n", "model.pkl": b"x" * 1000})
        logged = self._call(
            "POST", f"{_V2}/logged-models", {"experiment_id": experiment, "source_run_id": run_id}
        )
        self._call("POST", f"{_V2}/registered-models/create", {"name": names["model_name"]})
        for _ in range(2):
            self._call(
                "POST",
                f"{_V2}/model-versions/create",
                {"name": names["model_name"], "source": source, "run_id": run_id},
            )
        self._call(
            "POST",
            f"{_V2}/registered-models/alias",
            {"name": names["model_name"], "alias": "champion", "version": "1"},
        )
        trace = f"tr-{n:032x}"
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
        info = {
            "trace_id": trace,
            "trace_location": place,
            "request_time": "2026-01-01T00:00:00Z",
            "execution_duration": "1s",
            "state": "OK",
        }
        self._call("POST", f"{_V3}/traces", {"trace": {"trace_info": info}})
        judged = {
            "assessment_name": "judged",
            "trace_id": trace,
            "source": {"source_type": "HUMAN", "source_id": "somebody"},
            "feedback": {"value": True},
        }
        assessment = self._call("POST", f"{_V3}/traces/{trace}/assessments", {"assessment": judged})[
            "assessment"
        ]
        dataset = self._call(
            "POST",
            f"{_V3}/datasets/create",
            {"name": names["dataset_name"], "experiment_ids": [experiment]},
        )["dataset"]
        label = self._call(
            "POST",
            f"{_V3}/label-schemas/create",
            {
                "experiment_id": experiment,
                "name": f"label-{n}",
                "type": "FEEDBACK",
                "input": {"pass_fail": {"positive_label": "yes", "negative_label": "no"}},
            },
        )["label_schema"]
        issue = self._call(
            "POST",
            f"{_V3}/issues",
            {"experiment_id": experiment, "name": f"issue-{n}", "description": "an issue"},
        )["issue"]
        queue = self._call(
            "POST",
            f"{_V3}/review-queues/create",
            {"experiment_id": experiment, "name": names["queue_name"], "queue_type": "CUSTOM"},
        )["review_queue"]
        self._ids = {
            **{f"${word}": name for word, name in names.items()},
            "$artifacts": run["artifact_uri"],
            "$assessment": assessment["assessment_id"],
            "$dataset": dataset["dataset_id"],
            "$experiment": experiment,
            "$issue": issue["issue_id"],
            "$label": label["schema_id"],
            "$label_name": f"label-{n}",
            "$model": logged["model"]["info"]["model_id"],
            "$principal": Identity.arn("admin"),
            "$queue": queue["queue_id"],
            "$run": run_id,
            "$scorer": "scorer",
            "$trace": trace,
        }

    def real(self, value: Any, *, of: str) -> Any:
        """The value with real ids in place of their words; `$name` is that of what the route is about."""
        about = next((word for room, word in _NAMES.items() if room in of), "$experiment_name")
        ids = {**self._ids, "$name": self._ids[about]}

        def replaced(value: Any) -> Any:
            if isinstance(value, str):
                return _WORD.sub(lambda word: ids.get(word[0], word[0]), value)
            if isinstance(value, dict):
                return {replaced(key): replaced(each) for key, each in value.items()}
            if isinstance(value, list):
                return [replaced(each) for each in value]
            return value

        return replaced(value)

    def otlp(self, number: int) -> bytes:
        """Spans, as OpenTelemetry's exporter sends them."""
        message = ExportTraceServiceRequest()
        span = message.resource_spans.add().scope_spans.add().spans.add()
        span.trace_id = number.to_bytes(16, "big")
        span.span_id = b"\x00" * (number % 3) + b"12345678"[number % 3 :]
        span.name = "span"
        span.start_time_unix_nano, span.end_time_unix_nano = 1, number
        span.attributes.add(key="mlflow.spanInputs").value.string_value = "{"
        written: bytes = message.SerializeToString()
        return gzip.compress(written) if number % 2 else written

    def _call(self, method: str, path: str, body: object) -> dict[str, Any]:
        status, answer = request(self._port, method, path, body)
        assert status == 200, (path, answer)
        route = route_of(method, path)
        self.changes[f"{route.method} {route.path}"] += 1
        found: dict[str, Any] = json.loads(answer)
        return found
