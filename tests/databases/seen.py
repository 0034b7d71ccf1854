"""What an MLflow client sees of a tracking server, in words that every client since 2.11 has.

It needs nothing but MLflow, since old clients run it as a script: `python seen.py > seen.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType

Facts = dict[str, Any]


def seen(client: MlflowClient) -> dict[str, Facts]:
    """Experiments, runs, models, traces and logged models, each by its id or name; deleted ones too."""
    experiments = client.search_experiments(view_type=ViewType.ALL)
    ids = [each.experiment_id for each in experiments]
    runs = [run for each in ids for run in _pages(client.search_runs, [each], run_view_type=ViewType.ALL)]
    return {
        "experiments": {
            each.name: _facts(
                each, "experiment_id", "lifecycle_stage", "artifact_location", "tags", "creation_time"
            )
            for each in experiments
        },
        "runs": {run.info.run_id: _run(client, run) for run in runs},
        "models": {each.name: _model(client, each) for each in _pages(client.search_registered_models)},
        "traces": dict(sorted(_traces(client, ids))),
        "logged_models": dict(sorted(_logged_models(client, ids))),
    }


def _run(client: MlflowClient, run: Any) -> Facts:
    return {
        **_facts(
            run.info, "experiment_id", "run_name", "status", "start_time", "end_time", "user_id",
            "lifecycle_stage", "artifact_uri",
        ),
        "params": dict(sorted(run.data.params.items())),
        "tags": dict(sorted(run.data.tags.items())),
        "metrics": {key: repr(value) for key, value in sorted(run.data.metrics.items())},
        "histories": {
            key: _history(client.get_metric_history(run.info.run_id, key)) for key in sorted(run.data.metrics)
        },
        "inputs": sorted(
            (
                {
                    **_facts(each.dataset, "name", "digest", "source_type", "source", "schema", "profile"),
                    "tags": {tag.key: tag.value for tag in each.tags},
                }
                for each in run.inputs.dataset_inputs
            ),
            key=json.dumps,
        ),
    }  # fmt: skip


def _history(points: Iterable[Any]) -> Facts:
    """How many, and a digest of all: thousands would fill the file."""
    lines = sorted(f"{point.step} {point.timestamp} {point.value!r}" for point in points)
    return {"points": len(lines), "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def _model(client: MlflowClient, model: Any) -> Facts:
    # Its version of the time is asked for one by one: a search does not list aliases.
    name = model.name.replace("'", "''")
    versions = [
        client.get_model_version(model.name, each.version)
        for each in _pages(client.search_model_versions, f"name = '{name}'")
    ]
    return {
        **_facts(model, "description", "tags", "creation_timestamp", "last_updated_timestamp"),
        "aliases": {
            alias: str(version)
            for alias, version in sorted(client.get_registered_model(model.name).aliases.items())
        },
        "versions": {
            str(each.version): {
                **_facts(
                    each, "current_stage", "description", "tags", "source", "run_id", "status",
                    "creation_timestamp", "last_updated_timestamp",
                ),
                "aliases": sorted(each.aliases),
            }
            for each in sorted(versions, key=lambda version: int(version.version))
        },
    }  # fmt: skip


def _traces(client: MlflowClient, experiments: list[str]) -> Iterable[tuple[str, Facts]]:
    if not hasattr(client, "search_traces"):
        return
    for experiment in experiments:
        try:
            # Without spans, where it can be asked: they may be far away.
            found = client.search_traces([experiment], include_spans=False)
        except TypeError:
            found = client.search_traces([experiment])
        for info in (trace.info for trace in found):
            yield (
                info.request_id,
                {
                    **_facts(info, "experiment_id", "timestamp_ms", "tags"),
                    # Some versions take no time for none.
                    "execution_time_ms": info.execution_time_ms or 0,
                    "status": str(info.status).rpartition(".")[2],
                    "metadata": dict(sorted(info.request_metadata.items())),
                    "assessments": sorted(each.name for each in getattr(info, "assessments", [])),
                },
            )


def _logged_models(client: MlflowClient, experiments: list[str]) -> Iterable[tuple[str, Facts]]:
    if not hasattr(client, "search_logged_models"):
        return
    for model in client.search_logged_models(experiments):
        yield (
            model.model_id,
            {
                **_facts(
                    model, "experiment_id", "name", "model_type", "source_run_id", "artifact_location",
                    "creation_timestamp", "last_updated_timestamp", "tags", "params",
                ),
                "status": str(model.status).rpartition(".")[2],
                "metrics": sorted(
                    [each.key, repr(each.value), each.step, each.timestamp, each.dataset_name]
                    for each in model.metrics or []
                ),
            },
        )  # fmt: skip


def _pages(search: Any, *arguments: Any, **options: Any) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _facts(thing: Any, *names: str) -> Facts:
    facts = {}
    for name in names:
        value = getattr(thing, name)
        facts[name] = dict(sorted(value.items())) if isinstance(value, dict) else value
    return facts


if __name__ == "__main__":
    print(json.dumps(seen(MlflowClient()), indent=1, ensure_ascii=False))
