"""Values for the fields of requests: what exists, what nearly does, and what should not be asked.

A word with a dollar is replaced by a real id as a request is sent (tests/fuzz/world.py): the same seed makes
the same requests on another day.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KNOWN: Mapping[str, tuple[Any, ...]] = {
    "alias": ("champion", "v1", "latest"),
    "artifact_directory_path": ("", "model", ".."),
    "artifact_location": ("$artifacts", "s3://other/x", "file:///etc"),
    "assessment_id": ("$assessment",),
    "base_filter": ("", "trace.status = 'OK'"),
    "dataset_id": ("$dataset",),
    "experiment_id": ("$experiment", "0", "999999999", "-1", "9223372036854775808"),
    "experiment_name": ("$experiment_name",),
    "filter": (
        "metrics.m > 0", "tags.`k` LIKE '%v%'", "name = '$model_name'", "run_id = '$run'", "name ILIKE 'x'",
        "params.p = '1' AND metrics.m < 1e400", "attributes.start_time > 99999999999999999999",
        "tags.k RLIKE '('", "metrics.`' OR 1=1 --` > 0", "trace.status = 'OK'", "tags.k IN ('a', 'b')",
        "aliases.a = 'x'", "datasets.name = '$dataset_name'", "trace.timestamp_ms > 0",
    ),
    "issue_id": ("$issue",),
    "item_id": ("$trace",),
    "key": (
        "k", "m", "p", "mlflow.note.content", "mlflow.user", "mlflow_aws.created_by", "a;b", "a\\b", "\x00",
        "🚀",
    ),
    "max_results": (0, 1, 100, -1, 2**31, 2**63),
    "metric_key": ("m", "absent"),
    "model_id": ("$model", "m-00000000000000000000000000000000"),
    "name": ("$name", "", "a/b"),
    "new_name": ("renamed", "$name", "\x00"),
    "order_by": (
        "metrics.m DESC", "start_time ASC", "tags.k", "name", "timestamp_ms DESC", "last_updated_timestamp",
        "x y z", "attributes.`a`", "creation_timestamp DESC",
    ),
    "page_token": ("", "MA==", "eyJvZmZzZXQiOiAxfQ==", "not base64", "eyJvZmZzZXQiOiAtMX0="),
    "path": ("", "model", "model/MLmodel", "../..", "/etc/passwd", "%2e%2e"),
    "queue_id": ("$queue",),
    "request_id": ("$trace",),
    "run_id": ("$run", "0" * 32),
    "schema_id": ("$label",),
    "source": ("$artifacts/model", "models:/$model", "runs:/$run/model", "s3://other/x", "prompt-template"),
    "stage": ("Production", "Staging", "None", "Archived", "production", "x"),
    "status": ("FINISHED", "RUNNING", "x"),
    "trace_id": ("$trace", "tr-0"),
    "url": ("https://example.com/hook", "http://127.0.0.1:9/", "file:///etc/passwd"),
    "user": ("$principal", "someone"),
    "value": ("v", "", "v" * 9000, "\x00", "🚀" * 300),
    "version": ("1", "2", "0", "-1", "latest", "99999999999"),
}  # fmt: skip
"""By a field's name, first what leads to something that exists."""

SAME: Mapping[str, str] = {
    "dataset_ids": "dataset_id", "dataset_name": "name", "experiment_ids": "experiment_id",
    "filter_string": "filter", "filter_string1": "filter", "filter_string2": "filter", "item_ids": "item_id",
    "request_ids": "trace_id", "run_ids": "run_id", "run_uuid": "run_id", "schema_ids": "schema_id",
    "source_run_id": "run_id", "tag_key": "key", "trace_ids": "trace_id", "users": "user",
    "artifact_path": "path",
}  # fmt: skip

_ONE_OF_MANY = (
    "base_filter",
    "filter",
    "max_results",
    "new_name",
    "order_by",
    "page_token",
    "path",
    "status",
)
RIGHT: Mapping[str, Any] = {
    name: KNOWN[SAME.get(name, name)][0]
    for name in (*KNOWN, *SAME)
    if SAME.get(name, name) not in _ONE_OF_MANY
}
"""What leads to something that exists, by a field's name."""

NEEDED = {
    "alias", "dataset_id", "experiment_id", "experiment_ids", "key", "metric_key", "model_id", "name",
    "new_name", "path", "queue_id", "request_id", "run_id", "schema_id", "source", "stage", "step",
    "timestamp", "trace_id", "value", "version", "queue_type", "type", "input", "item_ids", "item_type",
    "records", "serialized_scorer", "events", "url", "trace_ids",
}  # fmt: skip
"""Fields without which MLflow looks at nothing else; the negative mode leaves them out."""
CHOSEN_FREELY = ("name", "new_name", "key", "value")
"""Which fields get any text, too."""

QUERIES = (
    "{ __typename }",
    "{ __schema { types { name } } }",
    'query { mlflowGetRun(input: {runId: "$run"}) { run { info { runId } } apiError { code } } }',
    'query { mlflowGetExperiment(input: {experimentId: "$experiment"}) { experiment { name } } }',
    'query { mlflowListArtifacts(input: {runId: "$run", path: ".."}) { files { path } } }',
    'query { mlflowSearchModelVersions(input: {filter: "x"}) { modelVersions { name } } }',
    'query { mlflowGetMetricHistoryBulkInterval(input: {runIds: ["$run"], metricKey: "m"}) { __typename } }',
    'mutation { mlflowSearchRuns(input: {experimentIds: ["$experiment"]}) { runs { info { runId } } } }',
    'mutation { mlflowSearchDatasets(input: {experimentIds: ["$experiment"]}) { __typename } }',
    "query Q($a: String) { test(inputString: $a) { output } }",
    'mutation { testMutation(inputString: "x") { output } }',
    "{ a: __typename b: __typename",
)
"""Of GraphQL."""
