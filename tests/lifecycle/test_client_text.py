"""Whatever clients write: the commands stand, the terminal and the report show it as text."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from model_lifecycle import RefusedByPolicyError, archive, explain, promote, report
from model_lifecycle.cli import main

from tests.lifecycle.conftest import Registered, Site, new_model
from tests.lifecycle.test_decision import GOOD, POISON
from tests.lifecycle.test_report import HOSTILE, shows_only_text

KEYS = [
    "mlflow.source.git.commit",
    "mlflow.source.name",
    "mlflow.note.content",
    "mlflow.data.context",
    "mlflow.log-model.history",
    "name",
    "digest",
    "source",
]


def _commands_stand(model: Registered, number: str) -> None:
    with model.site.bearer("viewer"):
        account = explain(
            model.site.registry(), model.name, version=number, s3=lambda: model.site.store.client
        )
    assert account.integrity.verdict == "intact"
    assert account.record_problems == ()
    shows_only_text(account)
    with model.site.bearer("approver"):
        outcome = promote(model.site.lifecycle(), model.name, number, to="staging", dry_run=True)
        assert outcome.findings[-1].rule == "sealed and unchanged"
        with contextlib.suppress(RefusedByPolicyError):
            archive(model.site.lifecycle(), model.name, number, dry_run=True)


@pytest.fixture(scope="module")
def written(site: Site) -> Registered:
    """A model that any number of versions are added to."""
    return new_model(site)


def _write(*calls: Callable[[], object]) -> int:
    """Make the calls; those that the server refuses leave nothing to be shown. Returns how many it took."""
    taken = 0
    for call in calls:
        with contextlib.suppress(MlflowException):
            call()
            taken += 1
    return taken


text = st.sampled_from(HOSTILE) | st.text(st.characters(codec="utf-8", exclude_characters="\0"))
key = st.sampled_from(KEYS) | text
figure = st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -0.0, 5e-324]) | st.floats()


@settings(
    max_examples=12,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.slow
def test_nothing_that_a_client_writes_breaks_a_command_or_the_report(
    data: st.DataObject, written: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    draw, site = data.draw, written.site
    with site.bearer("contributor"):
        client = site.client()
        experiment = "0"
        with contextlib.suppress(MlflowException):
            experiment = client.create_experiment(draw(text))
        try:
            start = draw(
                st.sampled_from([None, 0, -(10**15), 10**17, 2**62]) | st.integers(-(2**63), 2**63 - 1)
            )
            run = client.create_run(experiment, start_time=start, run_name=draw(text)).info
        except MlflowException:
            run = client.create_run("0").info
        dataset = {
            "name": draw(text),
            "digest": draw(text)[:30],
            "source_type": draw(text),
            "source": draw(
                text | st.sampled_from([json.dumps({"uri": [1]}), json.dumps({"tags": {"a": {}}})])
            ),
        }
        tags = [InputTag(draw(key), draw(text)) for _ in range(2)]
        client.log_metric(run.run_id, "auc", 0.8)
        _write(
            lambda: client.log_batch(run.run_id, metrics=[Metric(draw(text), draw(figure), 0, 0)]),
            lambda: client.log_batch(run.run_id, params=[Param(draw(text), draw(text))]),
            lambda: client.log_batch(run.run_id, tags=[RunTag(draw(key), draw(text))]),
            lambda: client.log_inputs(run.run_id, [DatasetInput(_dataset(dataset), tags)]),
        )
        prefix = f"{run.artifact_uri}/model".removeprefix(f"s3://{site.store.bucket}/")
        files = {"MLmodel": b"flavors: {}", "requirements.txt": draw(text).encode()}
        source = site.store.write_model(prefix, files)
        number = str(client.create_model_version(written.name, source, run.run_id).version)
        poison = draw(st.sampled_from(POISON))
        _write(
            lambda: client.update_model_version(written.name, number, draw(text)),
            lambda: client.update_registered_model(written.name, draw(text)),
            lambda: client.set_model_version_tag(written.name, number, draw(key), draw(text)),
            lambda: client.set_model_version_tag(
                written.name, number, f"lifecycle.decision.{draw(text)}", json.dumps({**GOOD, **poison})
            ),
            lambda: client.set_registered_model_tag(written.name, draw(key), draw(text)),
        )
    _commands_stand(written, number)


def _dataset(fields: dict[str, str]) -> Any:
    from mlflow.entities import Dataset

    return Dataset(schema="{}", profile="{}", **fields)


def test_the_largest_texts_that_mlflow_takes_are_cut_in_what_is_shown(model: Registered) -> None:
    number, megabyte = model.version(), "<b>" + "x" * 1_000_000
    run = model.run_id(number)
    with model.site.bearer("contributor"):
        client = model.site.client()
        from mlflow.entities import Dataset

        dataset = Dataset("d", "1", "local", "<b>" * 20_000, schema=megabyte[:60_000], profile=megabyte)
        taken = _write(
            lambda: client.log_inputs(run, [DatasetInput(dataset, [InputTag("k", "<b>" * 100)])]),
            lambda: client.set_model_version_tag(
                model.name, number, "lifecycle.decision.x", megabyte[:99_000]
            ),
            lambda: client.set_model_version_tag(model.name, number, "lifecycle.manifest", megabyte[:99_000]),
            lambda: client.set_tag(run, "mlflow.source.git.commit", megabyte[:5_000]),
        )
    assert taken == 4
    _commands_stand(model, number)
    with model.site.bearer("viewer"):
        account = explain(
            model.site.registry(), model.name, version=number, s3=lambda: model.site.store.client
        )
    assert all(len(line) < 1000 for line in report.as_text(account).split("\n"))


@pytest.mark.parametrize("poison", HOSTILE[:7], ids=range(7))
def test_a_refusal_shows_an_artifacts_name_as_text(
    poison: str, model: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = model.site.policy.with_name(f"{model.name}.toml")
    policy.write_text('version = 1\n[transitions.staging]\nevidence = ["*.none", "*"]\n')
    number, name = model.version(), f"{poison.replace('/', '-')[:100]}.txt"
    with model.site.bearer("viewer"):
        uri = model.site.client().get_run(model.run_id(number)).info.artifact_uri
    model.site.store.write_model(uri.removeprefix(f"s3://{model.site.store.bucket}/"), {name: b"x"})
    with model.site.bearer("approver"):
        code = main(
            [
                "promote",
                model.name,
                number,
                "--to=staging",
                f"--policy={policy}",
                f"--tracking-uri={model.site.url}",
            ]
        )
    said = capsys.readouterr()
    assert code == 3
    assert all(line.isprintable() for line in (said.out + said.err).split("\n"))
    assert not any(line.startswith("  ✓ files") for line in said.err.split("\n"))
