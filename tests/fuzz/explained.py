"""Answers of stock MLflow that no client should get, and why they stay: the only ones that are allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Explained:
    """A 5xx, or an error in another shape, that is MLflow's own."""

    name: str
    routes: str
    """A regular expression for "METHOD path"."""
    evidence: str
    """A regular expression for what is answered, and logged."""
    why: str


EXPLAINED = (
    Explained(
        name="trace without spans",
        routes=r"GET /(ajax-)?api/3\.0/mlflow/traces/(get|batchGet)",
        evidence="^500 .*Trace data not stored in tracking store",
        why="MLflow's client reads the spans of such a trace from the artifact store then.",
    ),
    Explained(
        name="forged page token",
        routes=r"(GET|POST) .*/(search|list|get-history|traces|unified-traces|webhooks|logged-models)",
        evidence="^500 .*(ASCII characters|base64|padding|codec can't decode|Expecting value|offset)",
        why="The token is decoded inside MLflow's database session, which calls each failure there its own.",
    ),
    Explained(
        name="order that names a field twice",
        routes=r"GET /(ajax-)?api/2\.0/mlflow/(registered-models|model-versions)/search",
        evidence="^500 .*`order_by` contains duplicate fields",
        why="MLflow refuses it without a code, which makes it a 500. The message says what to change.",
    ),
    Explained(
        name="new name for a deleted experiment",
        routes=r"POST /(ajax-)?api/2\.0/mlflow/experiments/update",
        evidence="^500 .*Cannot rename a non-active experiment",
        why="MLflow's code for a wrong state is a 500 everywhere. The message says what is wrong.",
    ),
    Explained(
        name="attribute that logged models have not",
        routes=r"POST /(ajax-)?api/2\.0/mlflow/logged-models/search",
        evidence="^500 .*'SqlLoggedModel' has no attribute",
        why="MLflow takes any name for a column inside its session. The message says which.",
    ),
    Explained(
        name="end of a trace without a state",
        routes=r"PATCH /(ajax-)?api/2\.0/mlflow/traces/<id>",
        evidence="^500 .*is not a valid TraceState",
        why="Clients of MLflow 2 call it, which send one.",
    ),
    Explained(
        name="page of records of no length",
        routes=r"GET /(ajax-)?api/3\.0/mlflow/datasets/<id>/records",
        evidence="^500 .*(list index out of range|invalid literal for int)",
        why="MLflow checks neither length nor token of this page, inside its session.",
    ),
    Explained(
        name="FastAPI's shape",
        routes="POST /v1/traces",
        evidence='^4(00|15|22) .*"detail":',
        why="Exporters of OpenTelemetry call it, which read the status and no body.",
    ),
    Explained(
        name="not in the open source",
        routes=(
            r"POST /(ajax-)?api/2\.0mlflow/experiments/search-datasets"
            r"|GET /(ajax-)?api/2\.0/mlflow/(unified-traces|get-online-trace-details)"
        ),
        evidence="^404 ''",
        why="MLflow lists these routes of Databricks and answers them with nothing.",
    ),
)


def explanation(route: str, evidence: str) -> str | None:
    """The name of the entry that explains such an answer, or None."""
    for entry in EXPLAINED:
        if re.fullmatch(entry.routes, route) and re.search(entry.evidence, evidence, re.DOTALL):
            return entry.name
    return None
