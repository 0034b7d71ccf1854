"""Which of MLflow's routes write tags, or move a model's stages and aliases."""

from __future__ import annotations

import enum
import re


class Concern(enum.Enum):
    """What provenance does about a request."""

    STAMP = "add a tag with the caller's name"
    VERSION = "add a tag with the caller's name, and begin to seal"
    GUARD = "refuse to write reserved tags"
    GUARD_PATH = "refuse to delete a reserved tag that the path names"
    STAGE = "move a version to a stage: under lock, with history"
    ALIAS = "set an alias: under lock, with history"
    ALIAS_REMOVAL = "remove an alias: under lock, with history"
    DELETION = "delete a version: under lock, with history"


PREFIXES = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")

_CONCERNS = {
    ("POST", "runs/create"): Concern.STAMP,
    ("POST", "model-versions/create"): Concern.VERSION,
    ("POST", "logged-models"): Concern.STAMP,
    ("POST", "runs/set-tag"): Concern.GUARD,
    ("POST", "runs/delete-tag"): Concern.GUARD,
    ("POST", "runs/log-batch"): Concern.GUARD,
    ("POST", "experiments/create"): Concern.GUARD,
    ("POST", "experiments/set-experiment-tag"): Concern.GUARD,
    ("POST", "experiments/delete-experiment-tag"): Concern.GUARD,
    ("POST", "registered-models/create"): Concern.GUARD,
    ("POST", "registered-models/set-tag"): Concern.GUARD,
    ("DELETE", "registered-models/delete-tag"): Concern.GUARD,
    ("POST", "model-versions/set-tag"): Concern.GUARD,
    ("DELETE", "model-versions/delete-tag"): Concern.GUARD,
    ("POST", "model-versions/transition-stage"): Concern.STAGE,
    ("POST", "registered-models/alias"): Concern.ALIAS,
    ("DELETE", "registered-models/alias"): Concern.ALIAS_REMOVAL,
    ("DELETE", "model-versions/delete"): Concern.DELETION,
}
_BY_PATH = {
    (method, prefix + path): concern for (method, path), concern in _CONCERNS.items() for prefix in PREFIXES
}

_LOGGED_MODEL_TAGS = re.compile(
    rf"(?:{'|'.join(map(re.escape, PREFIXES))})logged-models/[^/]+/tags(?:/(?P<key>[^/]+))?", re.DOTALL
)


def concern_of(method: str, path: str) -> tuple[Concern, str] | None:
    """The concern of a request to this path (decoded, as MLflow's router sees it), or None.

    With it comes the tag's name, if the path holds it.
    """
    if (concern := _BY_PATH.get((method, path))) is not None:
        return concern, ""
    if method in ("PATCH", "DELETE") and (found := _LOGGED_MODEL_TAGS.fullmatch(path)) is not None:
        key = found["key"]
        if method == "DELETE" and key is not None:
            return Concern.GUARD_PATH, key
        if method == "PATCH" and key is None:
            return Concern.GUARD, ""
    return None
