"""No client can write, change or delete what the server says about who did what."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import RdsLike
from tests.server.provenance.harness import ALICE, Server

PRINCIPAL = "mlflow_aws.principal"


class Things:
    """One of each thing that carries tags, with the server's own on it."""

    def __init__(
        self, server: Server, name: str, administer: Callable[..., list[tuple[object, ...]]]
    ) -> None:
        self.server = server
        self.administer = administer
        self.run = server.new_run()
        self.model = server.new_model(name, versions=1)
        model = server.post("logged-models", {"experiment_id": "0", "name": "m"})
        self.logged_model = model["model"]["info"]["model_id"]
        server.post("registered-models/alias", {"name": name, "alias": "champion", "version": "1"})

    def state(self) -> list[tuple[object, ...]]:
        """Every tag that is stored, and how many things there are."""
        tables = (
            "tags",
            "model_version_tags",
            "registered_model_tags",
            "logged_model_tags",
            "experiment_tags",
        )
        rows = " UNION ALL ".join(f"SELECT '{table}', t::text FROM {table} t" for table in tables)
        counts = " UNION ALL ".join(
            f"SELECT '{table}', count(*)::text FROM {table}"
            for table in (
                "experiments",
                "registered_models",
                "model_versions",
                "logged_models",
                "runs",
                "metrics",
            )
        )
        return self.administer(f"{rows} UNION ALL {counts} ORDER BY 1, 2", database=self.server.database)


@pytest.fixture(scope="module")
def things(server: Server, rds: RdsLike) -> Things:
    return Things(server, "forged", rds.administer)


Request = tuple[str, str, dict[str, object]]

FORGERIES: dict[str, Callable[[Things, str], Request]] = {
    "create a run with it": lambda t, key: (
        "POST",
        "runs/create",
        {"experiment_id": "0", "tags": [{"key": key, "value": "x"}]},
    ),
    "create a version with it": lambda t, key: (
        "POST",
        "model-versions/create",
        {"name": t.model, "source": "s3://bucket/root/model", "tags": [{"key": key, "value": "x"}]},
    ),
    "create a logged model with it": lambda t, key: (
        "POST",
        "logged-models",
        {"experiment_id": "0", "tags": [{"key": "fine", "value": "x"}, {"key": key, "value": "x"}]},
    ),
    "set a run's tag": lambda t, key: (
        "POST",
        "runs/set-tag",
        {"run_id": t.run, "key": key, "value": "x"},
    ),
    "set a run's tag by its old id": lambda t, key: (
        "POST",
        "runs/set-tag",
        {"run_uuid": t.run, "key": key, "value": "x"},
    ),
    "delete a run's tag": lambda t, key: ("POST", "runs/delete-tag", {"run_id": t.run, "key": key}),
    "log it with a batch": lambda t, key: (
        "POST",
        "runs/log-batch",
        {
            "run_id": t.run,
            "metrics": [{"key": "m", "value": 1, "timestamp": 1}],
            "tags": [{"key": "fine", "value": "x"}, {"key": key, "value": "x"}],
        },
    ),
    "log it with a batch, beside unknown fields": lambda t, key: (
        "POST",
        "runs/log-batch",
        {"run_id": t.run, "unknown": "", "tags": [{"value": "x", "key": key}]},
    ),
    "set a version's tag": lambda t, key: (
        "POST",
        "model-versions/set-tag",
        {"name": t.model, "version": "1", "key": key, "value": "x"},
    ),
    "delete a version's tag": lambda t, key: (
        "DELETE",
        "model-versions/delete-tag",
        {"name": t.model, "version": "1", "key": key},
    ),
    "set a model's tag": lambda t, key: (
        "POST",
        "registered-models/set-tag",
        {"name": t.model, "key": key, "value": "x"},
    ),
    "delete a model's tag": lambda t, key: (
        "DELETE",
        "registered-models/delete-tag",
        {"name": t.model, "key": key},
    ),
    "create a model with it": lambda t, key: (
        "POST",
        "registered-models/create",
        {"name": "never-made", "tags": [{"key": key, "value": "x"}]},
    ),
    "set a logged model's tag": lambda t, key: (
        "PATCH",
        f"logged-models/{t.logged_model}/tags",
        {"tags": [{"key": key, "value": "x"}]},
    ),
    "delete a logged model's tag": lambda t, key: (
        "DELETE",
        f"logged-models/{t.logged_model}/tags/{key}",
        {},
    ),
    "create an experiment with it": lambda t, key: (
        "POST",
        "experiments/create",
        {"name": "never-made", "tags": [{"key": key, "value": "x"}]},
    ),
    "set an experiment's tag": lambda t, key: (
        "POST",
        "experiments/set-experiment-tag",
        {"experiment_id": "0", "key": key, "value": "x"},
    ),
    "delete an experiment's tag": lambda t, key: (
        "POST",
        "experiments/delete-experiment-tag",
        {"experiment_id": "0", "key": key},
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_nobody_can(things: Things, forgery: str) -> None:
    before = things.state()
    reached = len(things.server.served)
    for prefix in ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow"):
        for key in (PRINCIPAL, "mlflow_aws.history.1", "mlflow_aws."):
            method, path, body = FORGERIES[forgery](things, key)
            answer = things.server.send(method, f"{prefix}/{path}", body)
            assert (answer.status, answer.code) == (403, "PERMISSION_DENIED")
            assert key in answer.json["message"]
    assert things.server.served[reached:] == []
    assert things.state() == before


@pytest.mark.parametrize("forgery", FORGERIES)
def test_the_same_with_an_innocent_name_would_have_worked(things: Things, forgery: str) -> None:
    """Otherwise a refusal would prove nothing."""
    method, path, body = FORGERIES[forgery](things, "innocent")
    answer = things.server.send(method, path, body)
    # Deleting a tag that a run, a logged model or an experiment does not have is an error of its own.
    assert answer.status == 200 or "innocent" in answer.json["message"]


SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "one letter escaped": lambda body: body.replace(PRINCIPAL, r"mlflow\u005faws.principal").encode(),
    "all letters escaped": lambda body: body.replace(
        PRINCIPAL, "".join(rf"\u{ord(letter):04X}" for letter in PRINCIPAL)
    ).encode(),
    "JSON in a JSON string": lambda body: json.dumps(body).encode(),
    "JSON in a JSON string, escaped within": lambda body: json.dumps(
        body.replace(PRINCIPAL, r"mlflow\u005faws.principal")
    ).encode(),
    "JSON in a JSON string, its backslash escaped": lambda body: (
        json.dumps(body.replace(PRINCIPAL, r"mlflow\u005faws.principal")).replace(r"\\", r"\u005c").encode()
    ),
    "UTF-16 with a byte order mark": lambda body: body.encode("utf-16"),
    "UTF-16 without": lambda body: body.encode("utf-16-be"),
    "UTF-32": lambda body: body.encode("utf-32-le"),
    "UTF-8 with a byte order mark": lambda body: body.encode("utf-8-sig"),
    "an innocent key first": lambda body: ('{"key": "innocent", ' + body[1:]).encode(),
    "a key within something unknown first": lambda body: ('{"unknown": {"key": []}, ' + body[1:]).encode(),
    "in white space": lambda body: b" \n\t" + body.encode() + b" \r\n",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("path", ["runs/set-tag", "runs/log-batch", "model-versions/set-tag"])
def test_nobody_can_by_spelling_it_otherwise(things: Things, spelling: str, path: str) -> None:
    before = things.state()
    fields: dict[str, object] = {"key": PRINCIPAL, "value": "mallory"}
    if path == "runs/log-batch":
        fields = {"tags": [fields]}
    body = json.dumps({"run_id": things.run, "name": things.model, "version": "1", **fields})
    answer = things.server.send("POST", path, raw=SPELLINGS[spelling](body))
    assert (answer.status, answer.code) == (403, "PERMISSION_DENIED")
    assert things.state() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        {"content-encoding": "gzip"},
        {"x-http-method-override": "GET"},
    ],
)
def test_nobody_can_by_declaring_it_otherwise(things: Things, headers: dict[str, str]) -> None:
    body = {"run_id": things.run, "key": PRINCIPAL, "value": "mallory"}
    assert things.server.send("POST", "runs/set-tag", body, headers=headers).status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow//runs/set-tag",
        "/api/2.0/mlflow/runs/set-tag/",
        "/api/2.0/mlflow/./runs/set-tag",
        "/api/2.0/mlflow/x/../runs/set-tag",
        "/api/2.0/mlflow/runs/set-tag;x",
        "/api/2.0/preview/mlflow/runs/set-tag",
        "/API/2.0/mlflow/runs/set-tag",
    ],
)
def test_nobody_can_by_another_path(things: Things, path: str) -> None:
    before = things.state()
    answer = things.server.send("POST", path, {"run_id": things.run, "key": PRINCIPAL, "value": "mallory"})
    assert answer.status >= 300
    assert things.state() == before


def test_nobody_can_by_a_method_in_lower_case(things: Things) -> None:
    body = {"run_id": things.run, "key": PRINCIPAL, "value": "mallory"}
    assert things.server.send("post", "runs/set-tag", body).status == 403


@pytest.mark.parametrize("body", [b"mlflow_aws", b'["mlflow_aws."]', b'{"key": ["mlflow_aws."]}'])
def test_body_that_names_a_reserved_tag_somehow_is_refused(things: Things, body: bytes) -> None:
    answer = things.server.send("POST", "runs/set-tag", raw=body)
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")


def test_query_says_nothing_when_the_body_does(things: Things) -> None:
    before = things.state()
    query = f"run_id={things.run}&key={PRINCIPAL}&value=mallory"
    assert things.server.send("POST", "runs/set-tag", {}, query=query).status == 400
    assert things.state() == before


@pytest.mark.parametrize(
    "key", ["mlflow_awsome", "mlflow_aws", "MLFLOW_AWS.principal", "x.mlflow_aws.principal", "mlflow.users"]
)
def test_other_names_are_everyones(server: Server, key: str) -> None:
    run = server.new_run()
    server.post("runs/set-tag", {"run_id": run, "key": key, "value": "mine"})
    server.post("runs/log-batch", {"run_id": run, "tags": [{"key": key, "value": "ours"}]})
    tags = server.tags_of_run(run)
    assert (tags[key], tags[PRINCIPAL]) == ("ours", ALICE)
    server.post("runs/delete-tag", {"run_id": run, "key": key})
    assert key not in server.tags_of_run(run)


def test_values_may_speak_of_reserved_names(server: Server) -> None:
    run = server.new_run()
    value = "see mlflow_aws.principal, \u00e9\t\x7f"
    params = [{"key": "mlflow_aws.param", "value": "p"}]
    server.post(
        "runs/log-batch", {"run_id": run, "params": params, "tags": [{"key": "note", "value": value}]}
    )
    assert server.tags_of_run(run)["note"] == value


def test_calls_of_training_loops_pass_unread_to_the_fast_path(server: Server) -> None:
    run = server.new_run()
    before = len(server.served)
    metrics = [{"key": f"m{i}", "value": i, "timestamp": 1, "step": 0} for i in range(1000)]
    server.post("runs/log-batch", {"run_id": run, "metrics": metrics})
    server.post("runs/set-tag", {"run_id": run, "key": "k", "value": "v"})
    assert server.served[before:] == []
