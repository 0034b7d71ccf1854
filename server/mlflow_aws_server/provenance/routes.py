"""Which of MLflow's routes write tags, name places, or move a model's stages and aliases."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class Concern(enum.Enum):
    """What provenance does about a request."""

    STAMP = "make something, with tags that name the caller"
    CREATE = "make something that is not stamped: copied reserved tags are left out"
    TAG = "write tags: unchanged and copied reserved tags are left out, others refused"
    UNTAG = "refuse to delete a reserved tag"
    UNTAG_PATH = "refuse to delete a reserved tag that the path names"
    KEYS = "write tags of a data set: only with keys by which they can be deleted"
    STAGE = "move a version to a stage: under lock, with history"
    ALIAS = "set an alias: under lock, with history"
    ALIAS_REMOVAL = "remove an alias: under lock, with history"
    DELETION = "delete a version: under lock, with history"


class Thing(enum.Enum):
    """What a route is about; the value is the first part of its path."""

    RUN = "runs"
    LOGGED_MODEL = "logged-models"
    VERSION = "model-versions"
    MODEL = "registered-models"
    EXPERIMENT = "experiments"
    DATASET = "datasets"


@dataclass(frozen=True, slots=True)
class Matter:
    """What a request is about."""

    concern: Concern
    thing: Thing
    logged_model: str = ""
    """The id that the path names."""
    key: str = ""
    """The tag that the path names."""


PREFIXES = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")

_CONCERNS = {
    ("POST", "runs/create"): Concern.STAMP,
    ("POST", "model-versions/create"): Concern.STAMP,
    ("POST", "logged-models"): Concern.STAMP,
    ("POST", "experiments/create"): Concern.CREATE,
    ("POST", "registered-models/create"): Concern.CREATE,
    ("POST", "runs/set-tag"): Concern.TAG,
    ("POST", "runs/log-batch"): Concern.TAG,
    ("POST", "experiments/set-experiment-tag"): Concern.TAG,
    ("POST", "registered-models/set-tag"): Concern.TAG,
    ("POST", "model-versions/set-tag"): Concern.TAG,
    ("POST", "runs/delete-tag"): Concern.UNTAG,
    ("POST", "experiments/delete-experiment-tag"): Concern.UNTAG,
    ("DELETE", "registered-models/delete-tag"): Concern.UNTAG,
    ("DELETE", "model-versions/delete-tag"): Concern.UNTAG,
    ("POST", "model-versions/transition-stage"): Concern.STAGE,
    ("POST", "registered-models/alias"): Concern.ALIAS,
    ("DELETE", "registered-models/alias"): Concern.ALIAS_REMOVAL,
    ("DELETE", "model-versions/delete"): Concern.DELETION,
}
_BY_PATH = {
    (method, prefix + path): Matter(concern, Thing(path.partition("/")[0]))
    for (method, path), concern in _CONCERNS.items()
    for prefix in PREFIXES
}

_DATASETS = re.compile(r"/(?:ajax-)?api/3\.0/mlflow/datasets/(?:create|[^/]+/tags)", re.DOTALL)
_LOGGED_MODEL_TAGS = re.compile(
    rf"(?:{'|'.join(map(re.escape, PREFIXES))})logged-models/(?P<id>[^/]+)/tags(?:/(?P<key>[^/]+))?",
    re.DOTALL,
)


def matter_of(method: str, path: str) -> Matter | None:
    """What a request to this path (decoded, as MLflow's router sees it) is about, if it is of concern."""
    if (matter := _BY_PATH.get((method, path))) is not None:
        return matter
    if method in ("PATCH", "DELETE") and (found := _LOGGED_MODEL_TAGS.fullmatch(path)) is not None:
        key = found["key"]
        if method == "DELETE" and key is not None:
            return Matter(Concern.UNTAG_PATH, Thing.LOGGED_MODEL, found["id"], key)
        if method == "PATCH" and key is None:
            return Matter(Concern.TAG, Thing.LOGGED_MODEL, found["id"])
    if method in ("POST", "PATCH") and _DATASETS.fullmatch(path) is not None:
        return Matter(Concern.KEYS, Thing.DATASET)
    return None
