"""Which size of body each of MLflow's routes may have."""

from __future__ import annotations

import re

from mlflow_aws_server.limits import BATCH, BODY, RECORDS, TRACES, Limit

# What may carry many values, each of the length that MLflow allows.
_BATCHES = frozenset((
    "experiments/create", "logged-models", "model-versions/create", "registered-models/create",
    "runs/create", "runs/log-batch", "runs/log-inputs", "traces",
))  # fmt: skip
_OF_ONE = re.compile(r"(?:logged-models|datasets|traces)/[^/]+/(?:(?P<records>records)|params|tags)")


def limit_of(path: str) -> Limit:
    """The limit of a body sent to this path (decoded). A route that is not named has the smallest."""
    if path == "/v1/traces":
        return TRACES
    route = path.partition("/mlflow/")[2]
    if route in _BATCHES:
        return BATCH
    found = _OF_ONE.fullmatch(route)
    if found is None:
        return BODY
    return RECORDS if found["records"] else BATCH
