"""Which of MLflow's routes change a run or a logged model, and which one a request would change."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from mlflow_aws_server.provenance import documents
from mlflow_aws_server.provenance.errors import unclear

NOTE = "mlflow.note.content"
"""The tag with a run's or a model's description: the only one that people may always write."""

BECAME = "mlflow.modelVersions"
"""The tag in which MLflow's client notes, after each registration, which versions a logged model became."""

_PREFIX = re.compile(r"/(?:ajax-)?api/2\.0/mlflow/")
_LOGGED_MODEL = re.compile(
    r"logged-models/(?P<id>[^/]+)(?P<rest>/params|/tags|/tags/(?P<key>[^/]+))?", re.DOTALL
)
_ENDED = frozenset(("FINISHED", "FAILED", "KILLED"))
_ENDING_FIELDS = frozenset(("run_id", "runId", "run_uuid", "runUuid", "status", "end_time", "endTime"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a request would change.

    The ids are all that MLflow could take for the one it acts on, in whatever spelling they are given.
    """

    runs: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    measured: frozenset[str] = frozenset()
    """Logged models to which metrics of a run would be attached."""
    describes: bool = False
    """It changes nothing but descriptions, and the client's note of what became of a logged model."""
    ends: bool = False
    """It ends a run, and changes nothing else."""


Reader = Callable[[Mapping[str, Any]], Change]


def reader_of(method: str, path: str) -> Reader | None:
    """How to read the body of a request to this path (decoded); None if it changes no run or logged model."""
    prefix = _PREFIX.match(path)
    if prefix is None:
        return None
    path = path[prefix.end() :]
    if method == "POST" and path in _READERS:
        return _READERS[path]
    found = _LOGGED_MODEL.fullmatch(path)
    if (
        found is None
        or (method, (found["rest"] or "").removesuffix(found["key"] or "")) not in _OF_LOGGED_MODELS
    ):
        return None
    model, key = found["id"], found["key"]

    def of_logged_model(document: Mapping[str, Any]) -> Change:
        # To finalize a model, MLflow takes the id in the body.
        models = _ids(document, "model_id") | {model}
        tags = _items(document, "tags")
        noted = found["rest"] == "/tags" and all(tag.get("key") in (NOTE, BECAME) for tag in tags)
        describes = key == NOTE or noted
        return Change(models=models, describes=describes)

    return of_logged_model


def detach(document: Mapping[str, Any], models: Set[str]) -> dict[str, Any]:
    """The same metrics of a run, attached to none of these logged models."""
    changed = _detached(document, models)
    if "metrics" in changed:
        changed["metrics"] = [_detached(metric, models) for metric in _items(document, "metrics")]
    return changed


def _detached(metric: Mapping[str, Any], models: Set[str]) -> dict[str, Any]:
    return {
        name: value
        for name, value in metric.items()
        if name not in ("model_id", "modelId") or value not in models
    }


def _run(document: Mapping[str, Any]) -> Change:
    return Change(runs=_ids(document, "run_id", "run_uuid"))


def _update(document: Mapping[str, Any]) -> Change:
    ends = document.get("status") in _ENDED and document.keys() <= _ENDING_FIELDS
    return Change(runs=_ids(document, "run_id", "run_uuid"), ends=ends)


def _tag(document: Mapping[str, Any]) -> Change:
    return Change(runs=_ids(document, "run_id", "run_uuid"), describes=_are_notes([document]))


def _metric(document: Mapping[str, Any]) -> Change:
    return Change(runs=_ids(document, "run_id", "run_uuid"), measured=_ids(document, "model_id"))


def _batch(document: Mapping[str, Any]) -> Change:
    metrics, params = _items(document, "metrics"), _items(document, "params")
    return Change(
        runs=_ids(document, "run_id", "run_uuid"),
        measured=frozenset(model for metric in metrics for model in _ids(metric, "model_id")),
        describes=not metrics and not params and _are_notes(_items(document, "tags")),
    )


def _outputs(document: Mapping[str, Any]) -> Change:
    models = frozenset(model for item in _items(document, "models") for model in _ids(item, "model_id"))
    return Change(runs=_ids(document, "run_id", "run_uuid"), models=models)


def _new_logged_model(document: Mapping[str, Any]) -> Change:
    return Change(runs=_ids(document, "source_run_id"))


_READERS: Mapping[str, Reader] = {
    "runs/update": _update,
    "runs/delete": _run,
    "runs/restore": _run,
    "runs/set-tag": _tag,
    "runs/delete-tag": _tag,
    "runs/log-batch": _batch,
    "runs/log-metric": _metric,
    "runs/log-parameter": _run,
    "runs/log-inputs": _run,
    "runs/log-model": _run,
    "runs/outputs": _outputs,
    "traces/link-to-run": _run,
    # It shows up as what the run made.
    "logged-models": _new_logged_model,
}
_OF_LOGGED_MODELS = frozenset(
    (("PATCH", ""), ("DELETE", ""), ("POST", "/params"), ("PATCH", "/tags"), ("DELETE", "/tags/"))
)


def _ids(document: Mapping[str, Any], *names: str) -> frozenset[str]:
    found = (documents.field(document, name, str) for name in names)
    return frozenset(value for value in found if value)


def _items(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    items = document.get(name)
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise unclear(f"`{name}` is not a list of objects")
    return items


def _are_notes(tags: list[dict[str, Any]] | list[Mapping[str, Any]]) -> bool:
    return all(tag.get("key") == NOTE for tag in tags)
