"""Paths that two readers could understand differently."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from mlflow_aws_server.identity.errors import MalformedRequestError
from mlflow_aws_server.identity.paths import refuse_ambiguous


def _look_at(raw: str) -> None:
    path = unquote_to_bytes(raw).decode("utf-8", "replace")
    refuse_ambiguous({"path": path, "raw_path": raw.encode("latin-1"), "root_path": ""})


@pytest.mark.parametrize(
    "path",
    [
        "//api/2.0/mlflow/runs/get",
        "/api//2.0/mlflow/runs/get",
        "/health//",
        "/./api",
        "/api/./runs",
        "/api/.",
        "/health/../api",
        "/health/..",
        "/health/..;/api",
        "/health;x=y",
        "/api;x/2.0",
        "/health/%2e%2e/api",
        "/health/%2E%2E/api",
        "/health/.%2e/api",
        "/api%2f2.0",
        "/api%2F2.0",
        "/api%5c2.0",
        "/api\\2.0",
        "/api%252f2.0",
        "/%61pi/2.0",
        "/api/2%2e0",
        "/api/%32.0",
        "/%41PI/2.0",
        "/a%7Ei",
        "/a%5Fi",
        "/a%2Di",
        "/api%00",
        "/api%0a",
        "/api%7f",
        "/api%3bx",
        "/api%",
        "/api%zz",
        "/api\x00",
        "/api\t",
        "/caf\xe9",
        "api/2.0",
        "*",
        "",
        "http://mlflow.example.com/health",
        "/" + "a" * 4096,
    ],
)
def test_path_is_refused(path: str) -> None:
    with pytest.raises(MalformedRequestError):
        _look_at(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/api/2.0/mlflow/runs/get",
        "/api/2.0/mlflow/runs/get?path=../x//y;z",
        "/static-files/static/js/main.3f2a~1.chunk.js",
        "/api/2.0/mlflow/logged-models/m-1/tags/a%20b",
        "/api/2.0/mlflow/logged-models/m-1/tags/caf%C3%A9",
        "/api/2.0/mlflow/logged-models/m-1/tags/a%3Ab@c",
        "/api/3.0/mlflow/traces/tr-1/assessments/a-1",
        "/a..b/.well-known/c.",
    ],
)
def test_plain_path_passes(path: str) -> None:
    _look_at(path)


def test_path_under_a_prefix_is_refused() -> None:
    with pytest.raises(MalformedRequestError):
        refuse_ambiguous({"path": "/api", "raw_path": b"/api", "root_path": "/api"})


def test_path_counts_where_a_server_does_not_keep_the_raw_one() -> None:
    refuse_ambiguous({"path": "/api", "raw_path": None})
    with pytest.raises(MalformedRequestError):
        refuse_ambiguous({"path": "/health/../api"})
