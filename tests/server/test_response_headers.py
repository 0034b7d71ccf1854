"""What every response tells a browser, whoever answers."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow_aws_server.response_headers import SecurityHeaders, bucket_origins, page_policy

from tests.server.fastpath.harness import Answer, call


async def answer(path: str, headers: list[tuple[bytes, bytes]] | None = None) -> Answer:
    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers or []})
        await send({"type": "http.response.body", "body": b"x"})

    return await call(SecurityHeaders(app), "GET", path)


def directives(policy: str) -> dict[str, list[str]]:
    return {name: values for name, *values in (part.split() for part in policy.split(";"))}


def policy_of(given: Answer) -> dict[str, list[str]]:
    (policy,) = [value for name, value in given.headers if name == b"content-security-policy"]
    return directives(policy.decode())


@pytest.mark.parametrize(
    "path",
    [
        "/get-artifact",
        "/model-versions/get-artifact",
        "/ajax-api/2.0/mlflow/get-trace-artifact",
        "/api/2.0/mlflow/runs/get",
        "/ajax-api/2.0/mlflow-artifacts/artifacts/x.html",
        "/version",
        "/health",
        "/ready",
        "/graphql",
        "/static-filesx",
        "/nowhere",
    ],
)
async def test_what_is_not_the_page_can_do_nothing_as_a_document(path: str) -> None:
    policy = policy_of(await answer(path))
    assert policy["sandbox"] == []
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == ["'none'"]
    assert "script-src" not in policy


@pytest.mark.parametrize("path", ["/", "/static-files/static/js/main.js"])
async def test_the_page_runs_scripts_of_its_own_origin_without_eval_or_handlers(path: str) -> None:
    policy = policy_of(await answer(path))
    assert policy["script-src"] == ["'self'"]
    assert policy["script-src-attr"] == policy["object-src"] == policy["default-src"] == ["'none'"]
    assert policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == ["'self'"]
    assert not any("unsafe-eval" in values or "*" in values for values in policy.values())


@pytest.mark.parametrize("path", ["/", "/get-artifact"])
async def test_each_header_is_there_once_and_ours(path: str) -> None:
    theirs = [
        (b"x-content-type-options", b"sniff"),
        (b"referrer-policy", b"unsafe-url"),
        (b"content-security-policy", b"default-src *"),
        (b"content-type", b"text/html"),
    ]
    given = await answer(path, theirs)
    names = [name for name, _ in given.headers]
    assert len(names) == len(set(names))
    told = dict(given.headers)
    assert told[b"x-content-type-options"] == b"nosniff"
    assert told[b"referrer-policy"] == b"same-origin"
    assert told[b"content-type"] == b"text/html"
    assert b"*" not in told[b"content-security-policy"]


async def test_an_error_that_nobody_answered_has_them_too() -> None:
    async def app(*_: Any) -> None:
        raise ZeroDivisionError("SELECT secret")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ZeroDivisionError):
        await SecurityHeaders(app)({"type": "http", "path": "/x"}, None, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 500
    assert b"content-security-policy" in dict(sent[0]["headers"])
    assert b"secret" not in sent[1]["body"]


@pytest.mark.parametrize(
    ("root", "region", "origins"),
    [
        (
            "s3://runs-1/prefix",
            "eu-central-1",
            ("https://runs-1.s3.eu-central-1.amazonaws.com", "https://runs-1.s3.amazonaws.com"),
        ),
        ("s3://runs.example.com", "eu-central-1", ("https://s3.eu-central-1.amazonaws.com",)),
        (
            "s3://runs-1",
            "cn-north-1",
            ("https://runs-1.s3.cn-north-1.amazonaws.com.cn", "https://runs-1.s3.amazonaws.com.cn"),
        ),
    ],
)
def test_only_the_artifact_bucket_may_be_asked_beside_the_server(
    monkeypatch: pytest.MonkeyPatch, root: str, region: str, origins: tuple[str, ...]
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    assert bucket_origins(root, region) == origins
    policy = directives(page_policy(origins))
    assert policy["connect-src"] == ["'self'", "data:", "blob:", *origins]


def test_an_endpoint_of_the_environment_is_the_bucket_s_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:4566/s3")
    assert bucket_origins("s3://runs-1", "eu-central-1") == ("http://127.0.0.1:4566",)
