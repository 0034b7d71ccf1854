"""docs/fuzz.md, and what is fuzzed at all."""

from __future__ import annotations

import json

from mlflow_aws_server.identity.access import ROUTES

from tests.fuzz.document import document
from tests.fuzz.report import DOCUMENT, RESULTS, as_markdown

# Routes that came after the long run; the next one takes them along, and they go from here.
_SINCE = {"GET /api/2.0/mlflow-aws/metrics", "GET /ajax-api/2.0/mlflow-aws/metrics"}


def test_document_is_what_was_seen() -> None:
    assert DOCUMENT.read_text() == as_markdown(), "python -m tests.fuzz --minutes 7 --seed 1"


def test_long_run_reached_every_route_and_left_nothing_unexplained() -> None:
    kept = json.loads(RESULTS.read_text())
    assert kept["unexplained"] == 0
    assert kept["peak_mib"] < 1024
    assert {*kept["routes"]} == _fuzzed() - _SINCE, "python -m tests.fuzz --minutes 7 --seed 1"


def test_every_route_is_fuzzed() -> None:
    known = {f"{route.method} {route.path}" for route in ROUTES if route.method != "*"}
    refused = {
        f"{method} {route.path}" for route in ROUTES if route.method == "*" for method in ("GET", "POST")
    }
    assert _fuzzed() == known | refused


def _fuzzed() -> set[str]:
    return {operation["operationId"] for path in document()["paths"].values() for operation in path.values()}
