"""Every tag that MLflow's own client can set, it can delete; a key that it could not delete is refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.genai.datasets import create_dataset, delete_dataset_tag, get_dataset, set_dataset_tags
from mlflow.tracking import get_tracking_uri, set_tracking_uri

from local.parts.ports import free_port
from tests.server.conftest import Deployment, Identity, request, wait_until_ready

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_KEY_IN_PATH = ("logged model", "data set")
ODD = "/\\;%?#.:@&=+$,!'()*[]{}|^`~\"<> \t\n\r\x00\x01\x1f\x7f\x80\x9f\xa0\u2028\ufeffé😀"
KEYS = st.one_of(
    st.text(st.sampled_from("ab" + ODD), min_size=1, max_size=6),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.sampled_from([".", "..", "...", "a/../b", "a//b", "%41", "a%2Fb", "%zz", "a?b=c", "a#b", "tags/x"]),
    st.text(st.sampled_from("😀é"), min_size=200, max_size=250),
)


@dataclass
class Tagged:
    """Something that has tags: how the client sets one, deletes it, and says which there are."""

    put: Callable[[str], object]
    delete: Callable[[str], object]
    keys: Callable[[], set[str]]


@pytest.fixture(scope="module")
def things(migrated: Deployment, identity: Identity) -> Iterator[dict[str, Tagged]]:
    """One of each thing of MLflow that has tags, at a server of its own."""
    port = free_port()
    process = migrated.start("serve", port=port, MLFLOW_AWS_PUBLIC_URL=f"https://127.0.0.1:{port}")
    before = get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_TOKEN", identity.token("admin"))
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        try:
            wait_until_ready(process, port)
            set_tracking_uri(f"http://127.0.0.1:{port}")
            yield _make(MlflowClient(f"http://127.0.0.1:{port}"))
        finally:
            set_tracking_uri(before)
            process.terminate()
            process.communicate(timeout=60)


def _make(client: MlflowClient) -> dict[str, Tagged]:
    name = uuid.uuid4().hex
    experiment = client.create_experiment(name)
    run = client.create_run(experiment).info.run_id
    model = client.create_logged_model(experiment, name="m").model_id
    data = create_dataset(name, experiment_id=experiment).dataset_id
    trace = client.start_trace("t", experiment_id=experiment)
    client.end_trace(trace.trace_id)
    client.create_registered_model(name)
    client.create_model_version(name, f"models:/{model}", model_id=model, await_creation_for=0)
    prompt = f"p{name}"
    client.register_prompt(prompt, "x")
    return {
        "run": Tagged(
            lambda key: client.set_tag(run, key, "v"),
            lambda key: client.delete_tag(run, key),
            lambda: set(client.get_run(run).data.tags),
        ),
        "experiment": Tagged(
            lambda key: client.set_experiment_tag(experiment, key, "v"),
            lambda key: client.delete_experiment_tag(experiment, key),
            lambda: set(client.get_experiment(experiment).tags),
        ),
        "logged model": Tagged(
            lambda key: client.set_logged_model_tags(model, {key: "v"}),
            lambda key: client.delete_logged_model_tag(model, key),
            lambda: set(client.get_logged_model(model).tags),
        ),
        "data set": Tagged(
            lambda key: set_dataset_tags(dataset_id=data, tags={key: "v"}),
            lambda key: delete_dataset_tag(dataset_id=data, key=key),
            lambda: set(get_dataset(dataset_id=data).tags),
        ),
        "trace": Tagged(
            lambda key: client.set_trace_tag(trace.trace_id, key, "v"),
            lambda key: client.delete_trace_tag(trace.trace_id, key),
            # Its spans are in S3, which this client cannot reach.
            lambda: set(client._tracing_client.get_trace_info(trace.trace_id).tags),
        ),
        "model": Tagged(
            lambda key: client.set_registered_model_tag(name, key, "v"),
            lambda key: client.delete_registered_model_tag(name, key),
            lambda: set(client.get_registered_model(name).tags),
        ),
        "version": Tagged(
            lambda key: client.set_model_version_tag(name, "1", key, "v"),
            lambda key: client.delete_model_version_tag(name, "1", key),
            lambda: set(client.get_model_version(name, "1").tags),
        ),
        "prompt": Tagged(
            lambda key: client.set_prompt_tag(prompt, key, "v"),
            lambda key: client.delete_prompt_tag(prompt, key),
            lambda: set(client.get_prompt(prompt).tags or {}),
        ),
    }


@pytest.mark.parametrize(
    "kind", ["run", "experiment", "logged model", "data set", "trace", "model", "version", "prompt"]
)
def test_a_tag_that_can_be_set_can_be_deleted(things: dict[str, Tagged], kind: str) -> None:
    thing = things[kind]

    @settings(
        max_examples=25 if kind in _KEY_IN_PATH else 5,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(KEYS)
    @example("a;b")
    @example("a%b")
    @example("a\\b")
    @example("a b")
    @example("😀" * 250)
    def check(key: str) -> None:
        before = thing.keys()
        if key in before:
            return
        try:
            thing.put(key)
        except MlflowException:
            assert thing.keys() == before
            return
        assert thing.keys() == before | {key}
        thing.delete(key)
        assert thing.keys() == before

    check()


@pytest.mark.parametrize("key", ["a/b", "a;b", "a%b", "a\\b", "a?b", "a#b", "a\nb", "..", ".", ""])
@pytest.mark.parametrize("prefix", ["/api", "/ajax-api"])
def test_a_key_that_no_path_can_name_is_refused_wherever_it_is_set(
    things: dict[str, Tagged], prefix: str, key: str
) -> None:
    port = int(get_tracking_uri().rpartition(":")[2])
    tags = [{"key": "fine", "value": "v"}, {"key": key, "value": "v"}]
    of_dataset = json.dumps({"fine": "v", key: "v"})
    for method, path, body in (
        ("POST", "2.0/mlflow/logged-models", {"experiment_id": "0", "tags": tags}),
        ("PATCH", "2.0/mlflow/logged-models/m-1/tags", {"tags": tags}),
        ("POST", "3.0/mlflow/datasets/create", {"name": "d", "tags": of_dataset}),
        ("PATCH", "3.0/mlflow/datasets/d-1/tags", {"tags": of_dataset}),
    ):
        status, answer = request(port, method, f"{prefix}/{path}", body, host=f"127.0.0.1:{port}")
        assert (status, json.loads(answer)["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert "could never be deleted" in json.loads(answer)["message"], path
