"""Every semantic of the calls, one by one: stock MLflow and ours answer and store alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mlflow_aws_server.fastpath import reading

from tests.server.fastpath.harness import Pair

LARGEST = 1.7976931348623157e308


def left(*values: object) -> Any:
    """A case in which stock serves at least one of the calls, and the fast path another."""
    return pytest.param(*values, marks=pytest.mark.stock_may_serve)


def metric(
    key: str, value: object, timestamp: object = 1, step: object = 0, **more: object
) -> dict[str, Any]:
    return {"key": key, "value": value, "timestamp": timestamp, "step": step, **more}


def log(pair: Pair, run: str, *metrics: dict[str, Any], **more: object) -> None:
    pair.post("runs/log-batch", {"run_id": run, "metrics": list(metrics), **more})


@pytest.mark.parametrize(
    "points",
    [
        [metric("m", 0.1)],
        [metric("m", 1)],
        [metric("m", -0.0), metric("m", 0.0)],
        [metric("m", 1e-7), metric("n", 1e16), metric("o", 123456789012345678), metric("p", 5e-324)],
        [metric("m", "NaN"), metric("m", 0.0)],
        [metric("m", 0.0), metric("m", "NaN")],
        [metric("m", "NaN"), metric("m", "NaN")],
        [metric("m", "Infinity"), metric("n", "-Infinity")],
        [metric("m", "Infinity"), metric("m", LARGEST)],
        [metric("m", 1.0), metric("m", 1.0)],
        [metric("m", 1.0, step=5), metric("m", 2.0, step=4), metric("m", 3.0, step=-9223372036854775808)],
        [metric("m", 1.0, timestamp=5), metric("m", 2.0, timestamp=4), metric("m", 3.0, timestamp=5)],
        [metric("m", 1.0, timestamp=9223372036854775807)],
        [metric(f"k{i % 7}", i / 3, timestamp=i % 5, step=i % 11) for i in range(300)],
        [metric(f"k{i}", i, step=i) for i in range(1000)],
        [{"key": "m", "value": 1.0, "timestamp": 0}],
        [metric("a/b.c-d e:f_é", 1.0)],
        [metric("x" * 250, 1.0)],
        [metric("m", 1.0, run_id="0" * 32)],
        [metric("m", 1.0, dataset_name="d", dataset_digest="e")],
        [],
    ],
)
def test_points_are_stored_and_shown_as_by_stock(pair: Pair, points: list[dict[str, Any]]) -> None:
    run = pair.new_run()
    before = pair.stock_served()
    log(pair, run, *points)
    log(pair, run, *reversed(points))
    pair.get("runs/get", {"run_id": run})
    for key in {p["key"] for p in points[:20]}:
        pair.get("metrics/get-history", {"run_id": run, "metric_key": key})
    assert pair.stock_served() == before, "a plain call was left to stock"
    pair.same_tables()


@pytest.mark.parametrize(
    "point",
    [
        left(metric("", 1.0)),
        left(metric("x" * 251, 1.0)),
        left(metric("a//b", 1.0)),
        left(metric("../a", 1.0)),
        left(metric("/a", 1.0)),
        left(metric(".", 1.0)),
        left(metric("a,b", 1.0)),
        metric("a\n", 1.0),
        left(metric("a\u0000", 1.0)),
        left(metric(5, 1.0)),  # type: ignore[arg-type]
        left(metric(None, 1.0)),  # type: ignore[arg-type]
        left(metric("m", None)),
        left(metric("m", "")),
        left(metric("m", "1.5")),
        left(metric("m", "nan")),
        left(metric("m", "inf")),
        left(metric("m", "abc")),
        left(metric("m", True)),
        left(metric("m", [])),
        left(metric("m", 1.0, timestamp=-1)),
        left(metric("m", 1.0, timestamp=None)),
        left(metric("m", 1.0, timestamp="")),
        left(metric("m", 1.0, timestamp="17")),
        left(metric("m", 1.0, timestamp=1.0)),
        left(metric("m", 1.0, timestamp=1.5)),
        left(metric("m", 1.0, timestamp=2**63)),
        left(metric("m", 1.0, timestamp=True)),
        left(metric("m", 1.0, step="3")),
        left(metric("m", 1.0, step=None)),
        left(metric("m", 1.0, step=2**63)),
        left(metric("m", 1.0, step=2.0)),
        left(metric("m", 1.0, unknown=1)),
        left(metric("m", 1.0, modelId="x")),
        left(metric("m", 1.0, model_id="m-1", modelId="m-2")),
        left(metric("m", 1.0, dataset_name="d")),
        left(metric("m", 1.0, model_id="m-missing")),
        left(metric("m", 1.0, model_id=7)),
        metric("m", 10**30),
        left("not an object"),
        left(None),
    ],
)
def test_odd_points_are_answered_as_by_stock(pair: Pair, point: Any) -> None:
    run = pair.new_run()
    # A param before the metrics: stock keeps it when the metrics are refused later than it.
    body = {
        "run_id": run,
        "metrics": [metric("fine", 1.0), point],
        "params": [{"key": "p", "value": "1"}],
        "tags": [{"key": "t", "value": "1"}],
    }
    pair.post("runs/log-batch", body)
    if isinstance(point, dict):
        pair.post("runs/log-metric", {"run_id": run, **point})
    pair.get("runs/get", {"run_id": run})
    pair.same_tables()


@pytest.mark.parametrize(
    "body",
    [
        left(b""),
        left(b"null"),
        left(b"[]"),
        left(b"{"),
        left(b'"{}"'),
        left(b'{"run_id": "RUN", "metrics": [{"key": "m", "value": NaN, "timestamp": 1}]}'),
        left(b'{"run_id": "RUN", "metrics": [{"key": "m", "value": 1e999, "timestamp": 1}]}'),
        b'{"run_id": "RUN", "metrics": [{"key": "m", "value": 1, "timestamp": 1}], "metrics": []}',
        left(b'\xef\xbb\xbf{"run_id": "RUN"}'),
        left(b'{"run_id": "RUN", "tags": [{"key": "t", "value": "\\ud800"}]}'),
        left(b'{"run_id": "RUN", "tags": [{"key": "t", "value": "\xff"}]}'),
        left(b'{"run_id": "RUN", "tags": [{"key": "t", "value": "a\\u0000b"}]}'),
        left(b'{"run_id": "RUN", "params": [{"key": "p", "value": "a\\u0000b"}]}'),
        left(b'{"runId": "RUN"}'),
        left(b'{"run_id": "RUN", "runId": "other"}'),
        left(b'{"run_uuid": "RUN"}'),
        left(b'{"run_id": ""}'),
        left(b'{"run_id": null}'),
        left(b'{"run_id": 7}'),
        left(b'{"run_id": "no such run"}'),
        left(b'{"run_id": "nosuchrun"}'),
        left(b'{"run_id": "RUN", "metrics": null}'),
        left(b'{"run_id": "RUN", "metrics": {}}'),
        left(b'{"run_id": "RUN", "params": [{"key": "p"}]}'),
        left(b'{"run_id": "RUN", "params": [{"key": "p", "value": null}]}'),
        b'{"run_id": "RUN", "params": [{"key": "p", "value": ""}]}',
        left(b'{"run_id": "RUN", "params": [{"key": "p", "value": 5}]}'),
        left(b'{"run_id": "RUN", "params": [{"value": "p"}]}'),
        left(b'{"run_id": "RUN", "params": [{"key": "p", "value": "1"}, {"key": "p", "value": "1"}]}'),
        b'{"run_id": "RUN", "tags": [{"key": "t", "value": "1"}, {"key": "t", "value": "2"}]}',
        left(b'{"run_id": "RUN", "tags": [{"key": "t"}]}'),
        left(b'{"run_id": "RUN", "tags": [{"key": "mlflow.runName", "value": "renamed"}]}'),
        left(b'{"run_id": "RUN", "tags": [{"key": "mlflow.runName", "value": ""}]}'),
        left(b'{"run_id": "RUN", "unknown": true}'),
    ],
)
def test_odd_bodies_of_log_batch_are_answered_as_by_stock(pair: Pair, body: bytes) -> None:
    run = pair.new_run()
    pair.post("runs/log-batch", body.replace(b"RUN", run.encode()))
    pair.get("runs/get", {"run_id": run})
    pair.same_tables()


@pytest.mark.parametrize(
    ("metrics", "params", "tags"),
    [
        left(1001, 0, 0),
        left(1000, 1, 0),
        left(0, 101, 0),
        (0, 100, 100),
        left(0, 0, 101),
        (800, 100, 100),
        left(801, 100, 100),
    ],
)
def test_limits_of_a_batch_are_those_of_stock(pair: Pair, metrics: int, params: int, tags: int) -> None:
    run = pair.new_run()
    body = {
        "run_id": run,
        "metrics": [metric(f"m{i}", i) for i in range(metrics)],
        "params": [{"key": f"p{i}", "value": "v"} for i in range(params)],
        "tags": [{"key": f"t{i}", "value": "v"} for i in range(tags)],
    }
    pair.post("runs/log-batch", body)
    pair.same_tables()


@pytest.mark.parametrize(("size", "kind"), [(6000, "p"), left(6001, "p"), (8000, "t"), left(8001, "t")])
def test_long_values_are_kept_cut_or_refused_as_by_stock(pair: Pair, size: int, kind: str) -> None:
    run = pair.new_run()
    pair.post(
        "runs/log-parameter" if kind == "p" else "runs/set-tag",
        {"run_id": run, "key": "k", "value": "é" * size},
    )
    pair.get("runs/get", {"run_id": run})
    pair.same_tables()


@pytest.mark.stock_may_serve
def test_params_keep_their_value(pair: Pair) -> None:
    run = pair.new_run()
    params = [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]
    log(pair, run, params=params)
    before = pair.stock_served()
    log(pair, run, params=params)
    pair.post("runs/log-parameter", {"run_id": run, "key": "a", "value": "1"})
    assert pair.stock_served() == before
    pair.post("runs/log-parameter", {"run_id": run, "key": "a", "value": "other"})
    log(pair, run, metric("m", 1.0), params=[{"key": "new", "value": "1"}, {"key": "b", "value": "other"}])
    pair.get("runs/get", {"run_id": run})
    pair.same_tables()


def test_tags_take_their_last_value(pair: Pair) -> None:
    run = pair.new_run()
    log(pair, run, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}, {"key": "a", "value": "3"}])
    pair.post("runs/set-tag", {"run_id": run, "key": "b", "value": ""})
    pair.post("runs/set-tag", {"run_id": run, "run_uuid": run, "key": "c", "value": 'ü\n\t"\\\u007f\u2028😀'})
    pair.get("runs/get", {"run_id": run, "run_uuid": run})
    pair.same_tables()


@pytest.mark.stock_may_serve
@pytest.mark.parametrize("call", ["log-metric", "log-parameter", "set-tag", "log-batch", "update"])
def test_a_deleted_run_is_refused_as_by_stock(pair: Pair, call: str) -> None:
    run = pair.new_run()
    pair.post("runs/delete", {"run_id": run})
    bodies: dict[str, dict[str, Any]] = {
        "log-metric": metric("m", 1.0),
        "log-parameter": {"key": "p", "value": "1"},
        "set-tag": {"key": "t", "value": "1"},
        "log-batch": {"metrics": [metric("m", 1.0)], "params": [{"key": "p", "value": "1"}]},
        "update": {"status": "FINISHED"},
    }
    pair.post(f"runs/{call}", {"run_id": run, **bodies[call]})
    pair.get("runs/get", {"run_id": run})
    pair.post("runs/restore", {"run_id": run})
    pair.post(f"runs/{call}", {"run_id": run, **bodies[call]})
    pair.same_tables()


@pytest.mark.stock_may_serve
@pytest.mark.parametrize("call", ["log-metric", "log-parameter", "set-tag", "update"])
def test_missing_and_odd_fields_of_single_calls_are_answered_as_by_stock(pair: Pair, call: str) -> None:
    run = pair.new_run()
    full: dict[str, Any] = {
        "log-metric": metric("k", 1.0),
        "log-parameter": {"key": "k", "value": "1"},
        "set-tag": {"key": "k", "value": "1"},
        "update": {"status": "FINISHED", "end_time": 17, "run_name": "n"},
    }[call]
    for name in full:
        odd: tuple[object, ...] = (None, "", 5, "x", [], {}, -1, 0, True, "x" * 300)
        for value in odd:
            pair.post(f"runs/{call}", {"run_id": run, **full, name: value})
        pair.post(f"runs/{call}", {"run_id": run, **{k: v for k, v in full.items() if k != name}})
    pair.post(f"runs/{call}", {"run_uuid": run, **full})
    pair.post(f"runs/{call}", full)
    pair.get("runs/get", {"run_id": run})
    pair.same_tables()


@pytest.mark.stock_may_serve
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"run_name": "named"},
        {"run_name": ""},
        {"tags": [{"key": "mlflow.runName", "value": "by tag"}, {"key": "é", "value": "ü"}]},
        {"run_name": "same", "tags": [{"key": "mlflow.runName", "value": "same"}]},
        {"run_name": "one", "tags": [{"key": "mlflow.runName", "value": "two"}]},
        {"tags": [{"key": "mlflow.runName", "value": ""}]},
        {"tags": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]},
        {"tags": [{"key": "a"}]},
        {"tags": [{"key": "", "value": "1"}]},
        {"tags": [{"key": "a//b", "value": "1"}]},
        {"tags": [{"key": "k" * 251, "value": "1"}]},
        {"tags": [{"key": "k", "value": "1" * 8001}]},
        {"user_id": ""},
        {"user_id": "u" * 257},
        {"run_name": "n" * 251},
        {"start_time": 0},
        {"start_time": -5},
        {"start_time": "17"},
        {"start_time": None},
        {"experiment_id": ""},
        {"experiment_id": "00"},
        {"experiment_id": " 0"},
        {"experiment_id": 0},
        {"experiment_id": "99"},
        {"experiment_id": "99999999999"},
        {"experiment_id": "x"},
        {"unknown": 1},
        {"tags": {}},
    ],
)
def test_runs_are_created_as_by_stock(pair: Pair, fields: dict[str, Any]) -> None:
    pair.new_run()
    body = {"experiment_id": "0", "start_time": 1700000000000, "user_id": "someone", **fields}
    pair.post("runs/create", {k: v for k, v in body.items() if v is not None})
    pair.post("runs/create", {k: v for k, v in body.items() if k in fields})
    pair.same_tables()


@pytest.mark.stock_may_serve
def test_runs_are_created_only_in_active_experiments(pair: Pair) -> None:
    created = pair.post("experiments/create", {"name": "other", "artifact_location": "s3://b/p?x=y"})
    experiment = created.json["experiment_id"]
    body = {"experiment_id": experiment, "start_time": 1, "user_id": "u", "run_name": "n"}
    pair.post("runs/create", body)
    pair.post("experiments/delete", {"experiment_id": experiment})
    pair.post("runs/create", body)
    pair.post("experiments/restore", {"experiment_id": experiment})
    pair.post("runs/create", body)
    pair.same_tables()


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "FINISHED"},
        {"status": "FINISHED", "end_time": 1700000000001},
        {"status": "KILLED", "run_name": "renamed"},
        {"run_name": "renamed é"},
        {"run_name": ""},
        {"end_time": 0},
        left({"end_time": "5"}),
        left({"status": 3}),
        left({"status": "3"}),
        left({"status": "NONSENSE"}),
        left({"status": "finished"}),
        left({"run_name": "n" * 251}),
        {},
    ],
)
def test_runs_are_updated_as_by_stock(pair: Pair, fields: dict[str, Any]) -> None:
    run = pair.new_run(run_name="first")
    pair.post("runs/update", {"run_id": run, "run_uuid": run, **fields})
    pair.get("runs/get", {"run_id": run})
    pair.same_tables()


@pytest.mark.stock_may_serve
def test_a_run_named_only_by_its_tag_is_shown_with_that_name(pair: Pair) -> None:
    run = pair.new_run(run_name="tagged")
    for side in (pair.stock, pair.ours):
        side.sql("UPDATE runs SET name = NULL")
    pair.get("runs/get", {"run_id": run})
    pair.post("runs/search", {"experiment_ids": ["0"]})
    pair.post("runs/update", {"run_id": run, "status": "FINISHED"})
    for side in (pair.stock, pair.ours):
        side.sql("DELETE FROM tags")
    pair.get("runs/get", {"run_id": run})
    pair.post("runs/update", {"run_id": run, "status": "FINISHED"})


_PAIRS = "(key, value, run_uuid) SELECT 'key' || n, repeat('v', 20), '{run}'"
_METRICS = "(key, value, timestamp, step, is_nan, run_uuid) SELECT 'key' || n, n, n, n, false, '{run}'"


@pytest.mark.parametrize(
    ("shown", "into", "most"),
    [
        ("tags", f"tags {_PAIRS}", reading._FEW_PAIRS),
        ("params", f"params {_PAIRS}", reading._FEW_PAIRS),
        ("metrics", f"latest_metrics {_METRICS}", reading._FEW_METRICS),
    ],
    ids=["tags", "params", "metrics"],
)
def test_a_run_of_any_size_is_shown_whole(pair: Pair, shown: str, into: str, most: int) -> None:
    run = pair.new_run()
    # A run has the tag of its name already.
    first = 2 if shown == "tags" else 1
    for start, end in ((first, most), (most + 1, most + 1), (most + 2, most + 2)):
        for side in (pair.stock, pair.ours):
            side.sql(f"INSERT INTO {into.format(run=run)} FROM generate_series({start}, {end}) n")
        answer = json.loads(pair.get("runs/get", {"run_id": run}).body)
        assert len(answer["run"]["data"][shown]) == end


@pytest.mark.parametrize("column", ["user_id", "status", "start_time"])
def test_a_run_of_another_writer_with_a_null_is_answered_as_by_stock(pair: Pair, column: str) -> None:
    run = pair.new_run()
    for side in (pair.stock, pair.ours):
        side.sql(f"UPDATE runs SET {column} = NULL")
    try:
        expected: object = pair.get("runs/get", {"run_id": run})
    except Exception as error:
        # Stock does not answer at all: its exception reaches the server, here as there.
        expected = error
    assert expected is not None


@pytest.mark.parametrize(
    "query",
    [
        left(""),
        left("run_id="),
        left("run_id=nosuchrun"),
        "run_id=RUN",
        left("run_uuid=RUN"),
        "run_id=RUN&run_uuid=RUN",
        "run_id=RUN&run_uuid=other",
        left("run_id=nosuchrun&run_id=RUN"),
        left("run_id=RUN&run_id=nosuchrun"),
        left("run_id=RUN&unknown=1"),
        left("runId=RUN"),
        left("run_id=%52UN"),
        left("run_id=RUN%00"),
        left("run_id=%ff"),
        left("run_id=RUN;x=y"),
        left("run_id=+RUN"),
    ],
)
def test_queries_of_get_run_are_read_as_by_stock(pair: Pair, query: str) -> None:
    run = pair.new_run()
    pair.same("GET", "/api/2.0/mlflow/runs/get", query=query.replace("RUN", run), headers=())
    pair.same("GET", "/ajax-api/2.0/mlflow/runs/get", query=query.replace("RUN", run), headers=())


@pytest.mark.stock_may_serve
def test_model_metrics_are_stored_as_by_stock(pair: Pair) -> None:
    run = pair.new_run()
    body = {"experiment_id": "0", "name": "model", "source_run_id": run}
    model = pair.loop.run_until_complete(_create_model(pair, body))
    before = pair.stock_served()
    points = [
        metric("m", 1.0, model_id=model),
        metric("n", "NaN", model_id=model),
        metric("o", "Infinity", model_id=model, dataset_name="d", dataset_digest="e"),
        metric("plain", 1.0),
        metric("m", 1.0, model_id=model),
    ]
    log(pair, run, *points)
    pair.post("runs/log-metric", {"run_id": run, **metric("single", 2.0, model_id=model)})
    assert pair.stock_served() == before
    pair.same_tables()
    # Again, and with another value at the same place: stock decides, and the answers are its.
    log(pair, run, *points)
    log(pair, run, metric("m", 7.0, model_id=model), tags=[{"key": "t", "value": "1"}])
    log(pair, run, metric("q", "NaN", model_id=model), metric("q", "NaN", model_id=model))
    log(pair, run, metric("r", 1.0, model_id=model, run_id="a"), metric("r", 1.0, model_id=model, run_id="b"))
    pair.post("runs/log-metric", {"run_id": run, **metric("single", 3.0, model_id=model)})
    pair.post("runs/log-metric", {"run_id": run, **metric("x", 3.0, model_id="m-" + "0" * 32)})
    pair.get("runs/get", {"run_id": run})
    pair.same_tables()


async def _create_model(pair: Pair, body: dict[str, Any]) -> str:
    from tests.server.fastpath.harness import repeatable

    ids = []
    for side in (pair.stock, pair.ours):
        with repeatable(99):
            answer = await side.call("POST", "/api/2.0/mlflow/logged-models", body=json.dumps(body).encode())
        ids.append(answer.json["model"]["info"]["model_id"])
    assert ids[0] == ids[1]
    return str(ids[0])


def test_datasets_and_models_of_runs_are_shown_as_by_stock(pair: Pair) -> None:
    runs = [pair.new_run(start_time=i + 1) for i in range(3)]
    model = pair.loop.run_until_complete(_create_model(pair, {"experiment_id": "0", "name": "model"}))

    def dataset(name: str, **more: str) -> dict[str, Any]:
        return {"name": name, "digest": name + "1", "source_type": "local", "source": "file", **more}

    context = {"key": "mlflow.data.context", "value": "training"}
    pair.post(
        "runs/log-inputs",
        {
            "run_id": runs[0],
            "datasets": [
                {
                    "tags": [context, {"key": "b", "value": ""}],
                    "dataset": dataset("x", schema="{}", profile="é"),
                },
                {"dataset": dataset("y")},
            ],
            "models": [{"model_id": model}],
        },
    )
    pair.post(
        "runs/log-inputs", {"run_id": runs[1], "datasets": [{"tags": [context], "dataset": dataset("y")}]}
    )
    pair.post("runs/outputs", {"run_id": runs[0], "models": [{"model_id": model, "step": 3}]})
    before = pair.stock_served()
    for run in runs:
        pair.get("runs/get", {"run_id": run})
    pair.post("runs/search", {"experiment_ids": ["0"]})
    for question in ("dataset.name = 'y'", "dataset.context = 'training'", "dataset.digest LIKE '%1'"):
        pair.post("runs/search", {"experiment_ids": ["0"], "filter": question})
        pair.post("runs/search", {"experiment_ids": ["0"], "filter": question, "order_by": ["tags.x DESC"]})
    assert pair.stock_served() == before
    pair.same_tables()


QUESTIONS = [
    "",
    "metrics.m > 1",
    "metrics.m != 1",
    "metrics.m <= -1.5e0",
    "metrics.`with space` >= 0",
    'metrics."m" = 0',
    "params.p = '1'",
    "params.p != '1'",
    "params.p LIKE '%1%'",
    "params.p ILIKE 'A_'",
    "params.p IS NULL",
    "params.p IS NOT NULL and tags.t IS NULL",
    "tags.t = 'x' and tags.`mlflow.runName` LIKE 'run%'",
    "tags.t ILIKE '%É%'",
    "attributes.status = 'FINISHED'",
    "attribute.run_name LIKE 'run 1%'",
    "run_name = 'run 2'",
    "`run name` != 'run 2'",
    "start_time > 2",
    "attributes.end_time >= 5 and start_time < 100",
    "created >= 3",
    "run_id IN ('a', 'b')",
    "run_id NOT IN ('a')",
    "user_id = 'u'",
    "artifact_uri LIKE 's3://%'",
    "dataset.name = 'nothing'",
    "metrics.m > 'a'",
    "metrics.m LIKE 'a'",
    "params.p > '1'",
    "params.p = 1",
    "nonsense",
    "metrics.m >",
    "metrics.m > 1 or metrics.n > 1",
    "attributes.nonsense = 'x'",
    "start_time > 'x'",
    "start_time > 99999999999999999999",
    "metrics.m > 1e400",
    "params.p = 'it''s'",
    "params.p = '%'",
    "run_id IN ()",
]
ORDERS: list[list[str]] = [
    [],
    ["metrics.m DESC"],
    ["metrics.m", "params.p DESC"],
    ["params.p"],
    ["tags.t ASC", "start_time"],
    ["attributes.status", "run_name DESC"],
    ["start_time DESC"],
    ["start_time", "start_time"],
    ["metrics.m", "metrics.m"],
    ["end_time desc", "run_id"],
    ["nonsense"],
    ["metrics.m SIDEWAYS"],
    ["created"],
    ["`run name`"],
]


@pytest.fixture
def searchable(pair: Pair) -> Pair:
    other = pair.post("experiments/create", {"name": "other"}).json["experiment_id"]
    for i in range(12):
        run = pair.new_run(
            run_name=f"run {i}", start_time=1 + i // 2, experiment_id=other if i % 5 == 4 else "0"
        )
        body: dict[str, Any] = {"run_id": run, "metrics": [], "params": [], "tags": []}
        if i % 4 != 3:
            body["metrics"].append(metric("m", ["NaN", 0, i / 2, -i, "Infinity", 1][i % 6]))
        if i % 3:
            body["params"].append({"key": "p", "value": ["1", "a1", "%", "it's"][i % 4]})
        if i % 2:
            body["tags"].append({"key": "t", "value": ["x", "É", ""][i % 3]})
        pair.post("runs/log-batch", body)
        if i % 4 == 1:
            pair.post("runs/update", {"run_id": run, "status": "FINISHED", "end_time": i})
        if i % 6 == 2:
            pair.post("runs/delete", {"run_id": run})
    return pair


@pytest.mark.stock_may_serve
def test_searches_find_what_stock_finds(searchable: Pair) -> None:
    for question in QUESTIONS:
        searchable.post("runs/search", {"experiment_ids": ["0", "1"], "filter": question})
    for order in ORDERS:
        searchable.post("runs/search", {"experiment_ids": ["0", "1"], "order_by": order})
        searchable.post(
            "runs/search", {"experiment_ids": ["0"], "filter": "metrics.m >= 0", "order_by": order}
        )


def test_plain_searches_are_not_left_to_stock(searchable: Pair) -> None:
    before = searchable.stock_served()
    for question in QUESTIONS[:26]:
        searchable.post("runs/search", {"experiment_ids": ["0"], "filter": question})
    assert searchable.stock_served() == before


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"experiment_ids": []},
        {"experiment_ids": ["0"]},
        {"experiment_ids": ["1"]},
        {"experiment_ids": ["0", "1", "7"]},
        {"experiment_ids": ["0", "0"]},
        left({"experiment_ids": ["x"]}),
        left({"experiment_ids": [0]}),
        left({"experiment_ids": "0"}),
        {"experiment_ids": ["0"], "run_view_type": "ACTIVE_ONLY"},
        {"experiment_ids": ["0"], "run_view_type": "DELETED_ONLY"},
        {"experiment_ids": ["0"], "run_view_type": "ALL"},
        left({"experiment_ids": ["0"], "run_view_type": 3}),
        left({"experiment_ids": ["0"], "run_view_type": "NONSENSE"}),
        {"experiment_ids": ["0"], "max_results": 1},
        left({"experiment_ids": ["0"], "max_results": 0}),
        left({"experiment_ids": ["0"], "max_results": -1}),
        {"experiment_ids": ["0"], "max_results": 50000},
        left({"experiment_ids": ["0"], "max_results": 50001}),
        left({"experiment_ids": ["0"], "max_results": "2"}),
        left({"experiment_ids": ["0"], "max_results": None}),
        {"experiment_ids": ["0"], "page_token": ""},
        left({"experiment_ids": ["0"], "page_token": "nonsense"}),
        {"experiment_ids": ["0"], "page_token": "eyJvZmZzZXQiOiAyfQ=="},
        {"experiment_ids": ["0"], "page_token": "eyJvZmZzZXQiOiAiMiJ9"},
        left({"experiment_ids": ["0"], "page_token": "eyJvZmZzZXQiOiAtMX0="}),
        left({"experiment_ids": ["0"], "page_token": "W10="}),
        left({"experiment_ids": ["0"], "order_by": "start_time"}),
        left({"experiment_ids": ["0"], "order_by": [1]}),
        left({"experiment_ids": ["0"], "filter": 1}),
        left({"experiment_ids": ["0"], "filter": None}),
        left({"experiment_ids": ["0"], "unknown": 1}),
    ],
)
def test_fields_of_a_search_are_read_as_by_stock(pair: Pair, fields: dict[str, Any]) -> None:
    for i in range(4):
        pair.new_run(start_time=i + 1)
    pair.post("runs/search", fields)


def test_pages_of_a_search_are_those_of_stock(searchable: Pair) -> None:
    token, pages = "", 0
    while pages < 10:
        body = {"experiment_ids": ["0", "1"], "max_results": 3, "page_token": token, "run_view_type": "ALL"}
        answer = searchable.post("runs/search", body).json
        token, pages = answer.get("next_page_token", ""), pages + 1
        if not token:
            break
    assert pages == 4


@pytest.fixture
def charted(pair: Pair) -> tuple[Pair, list[str]]:
    runs = [pair.new_run() for _ in range(3)]
    for n, run in enumerate(runs[:2]):
        points = [metric("m", (i * 7) % 13, timestamp=i // 3, step=i // (2 + n)) for i in range(40)]
        points += [metric("m", "NaN", timestamp=99, step=50), metric("m", 0, timestamp=99, step=51)]
        points += [metric("m é", i, step=0) for i in range(30)]
        log(pair, run, *points)
    return pair, runs


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"max_results": "5"},
        {"max_results": "42"},
        {"max_results": "43"},
        left({"max_results": "0"}),
        left({"max_results": "-1"}),
        left({"max_results": "x"}),
        left({"max_results": "5.0"}),
        left({"max_results": ""}),
        left({"max_results": "99999"}),
        left({"max_results": "9999999999"}),
        {"max_results": "5", "page_token": "eyJvZmZzZXQiOiA1fQ=="},
        {"page_token": "eyJvZmZzZXQiOiA1fQ=="},
        left({"page_token": "nonsense"}),
        {"metric_key": "m é"},
        {"metric_key": "nothing"},
        left({"metric_key": ""}),
        {"run_uuid": "x"},
        left({"unknown": "x"}),
    ],
)
def test_histories_are_those_of_stock(charted: tuple[Pair, list[str]], arguments: dict[str, str]) -> None:
    pair, runs = charted
    for run in runs:
        pair.get("metrics/get-history", {"run_id": run, "metric_key": "m", **arguments})


@pytest.mark.stock_may_serve
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"max_results": "5"},
        {"max_results": "1"},
        {"max_results": "2"},
        {"max_results": "41"},
        {"max_results": "42"},
        {"max_results": "43"},
        {"max_results": "2500"},
        {"max_results": "2501"},
        {"max_results": "0"},
        {"start_step": "3", "end_step": "9"},
        {"start_step": "3", "end_step": "9", "max_results": "3"},
        {"start_step": "9", "end_step": "3"},
        {"start_step": "3"},
        {"start_step": "-3", "end_step": "0"},
        {"start_step": "x", "end_step": "0"},
        {"metric_key": "m é"},
        {"metric_key": "nothing"},
        {"metric_key": ""},
        {"unknown": "x"},
    ],
)
def test_charts_are_those_of_stock(charted: tuple[Pair, list[str]], arguments: dict[str, str]) -> None:
    pair, runs = charted
    for prefix in ("/ajax-api/2.0/mlflow/", "/api/2.0/mlflow/"):
        several = [*runs, runs[0]]
        for run_ids in (several, [], ["nosuchrun"]):
            pair.get(
                "metrics/get-history-bulk-interval",
                {"run_ids": run_ids, "metric_key": "m", **arguments},
                prefix=prefix,
            )
