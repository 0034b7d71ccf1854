"""How much of a request's body is read, for every route, and what reaches MLflow of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from mlflow.utils import validation
from mlflow_aws_server import limits
from mlflow_aws_server.budgets import bodies, shape
from mlflow_aws_server.budgets.sizes import limit_of
from mlflow_aws_server.identity.access import ROUTES
from mlflow_aws_server.shares import CALLER
from mlflow_aws_server.stock import StockMlflow

from tests.server.budgets.harness import Answer, Behind, Guarded, Message

PREFIXES = ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow")
LOG_BATCH = f"{PREFIXES[0]}/runs/log-batch"
PATHS = sorted(
    {route.path.replace("<id>", "m-1").replace("<key>", "k").replace("<rest>", "any") for route in ROUTES}
)
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
_WIDEST = 12
"""Bytes of a character outside of the basic plane, as JSON in ASCII."""


async def test_every_route_refuses_a_body_beyond_its_limit_without_reading_it() -> None:
    guarded = Guarded()
    for path in PATHS:
        limit = limit_of(path)
        assert limit.most > limits.SMALL_BODY
        for method in METHODS:
            answer = await guarded.send(
                method, path, b"x", headers={"content-length": str(limit.most + 1)}, unfinished=True
            )
            assert answer.error == (413, "INVALID_PARAMETER_VALUE"), (method, path)
            assert f"{limit.most + 1} {limit.unit}; at most {limit.most}" in answer.message
    assert guarded.read == 0
    assert guarded.behind.bodies == []


async def test_every_route_stops_reading_a_body_of_unknown_length_at_its_limit() -> None:
    for path in ("/health", "/graphql", "/v1/traces", LOG_BATCH, "/api/3.0/mlflow/datasets/d-1/records"):
        guarded, limit, piece = Guarded(), limit_of(path), b" " * (1024 * 1024)
        answer = await guarded.send("POST", path, [piece] * 100, chunked=True)
        assert answer.status == 413
        assert limit.most < guarded.read <= limit.most + len(piece)
        assert guarded.behind.bodies == []
        assert guarded.budgets.bodies.large == 0


def test_both_prefixes_have_the_same_limits() -> None:
    for path in PATHS:
        if path.startswith("/api/"):
            assert limit_of(path) is limit_of(path.replace("/api/", "/ajax-api/", 1)), path


def test_the_longest_batch_that_mlflow_accepts_is_within_the_limit() -> None:
    pairs = validation.MAX_PARAMS_TAGS_PER_BATCH
    key = validation.MAX_ENTITY_KEY_LENGTH
    metrics = validation.MAX_METRICS_PER_BATCH - 2 * pairs
    characters = pairs * (key + validation.MAX_PARAM_VAL_LENGTH + key + validation.MAX_TAG_VAL_LENGTH)
    characters += metrics * (key + validation.MAX_DATASET_NAME_SIZE + validation.MAX_DATASET_DIGEST_SIZE)
    framing = (2 * pairs + metrics) * 256
    assert _WIDEST * characters + framing <= limits.BATCH.most


def test_the_longest_values_that_mlflow_accepts_are_within_the_limits() -> None:
    assert limits.BODY.most >= _WIDEST * (validation.MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH + 1000)
    assert limits.BODY.most >= _WIDEST * (validation.MAX_EXPERIMENT_TAG_VAL_LENGTH + 1000)
    dataset = (
        validation.MAX_DATASET_PROFILE_SIZE
        + validation.MAX_DATASET_SCHEMA_SIZE
        + validation.MAX_DATASET_SOURCE_SIZE
    )
    # Not with 12 bytes for each character: an eighth of them quotes, as JSON within JSON has.
    assert dataset * 9 // 8 <= limits.BATCH.most
    assert limits.BATCH.most < limits.HELD.most


async def test_a_body_of_unknown_length_reaches_mlflow_whole_and_with_its_length() -> None:
    guarded = Guarded()
    for pieces in ([b"{", b'"a": 1', b"}"], [b" " * 100_000, b"{}"], [b""]):
        answer = await guarded.send("POST", LOG_BATCH, pieces, chunked=True)
        assert answer.status == 200
        assert guarded.behind.bodies[-1] == b"".join(pieces)
        assert guarded.behind.headers[-1][b"content-length"] == b"%d" % len(b"".join(pieces))
        assert b"transfer-encoding" not in guarded.behind.headers[-1]
    assert guarded.budgets.bodies.large == 0


@pytest.mark.parametrize("length", ["-1", "1e3", "", " 5", "0x10", "1" * 5000])
async def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    answer = await Guarded().send("POST", LOG_BATCH, b"{}", headers={"content-length": length})
    assert answer.error == (400, "INVALID_PARAMETER_VALUE")


async def test_many_unfinished_bodies_neither_fill_the_memory_nor_stop_small_ones() -> None:
    guarded = Guarded()
    size = 4 * 1024 * 1024
    unfinished = [
        asyncio.create_task(
            guarded.send(
                "POST", LOG_BATCH, b"x" * size, headers={"content-length": str(2 * size)}, unfinished=True
            )
        )
        for _ in range(20)
    ]
    fit = limits.HELD.most // size
    while sum(task.done() for task in unfinished) < len(unfinished) - fit:
        await asyncio.sleep(0)
    answers = [task.result() for task in unfinished if task.done()]
    assert {answer.error for answer in answers} == {(429, "RESOURCE_EXHAUSTED")}
    assert {answer.headers[b"retry-after"] for answer in answers} == {b"1"}
    assert guarded.budgets.bodies.large <= limits.HELD.most
    assert (await guarded.send("POST", LOG_BATCH, b"{}")).status == 200
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)
    assert guarded.budgets.bodies.large == 0


async def test_a_body_counts_until_it_is_answered() -> None:
    seen = []

    async def behind(scope: Message, receive: object, send: object) -> None:
        seen.append(guarded.budgets.bodies.large)
        raise RuntimeError("MLflow fails")

    guarded = Guarded(behind)
    with pytest.raises(RuntimeError):
        await guarded.send("POST", LOG_BATCH, b" " * 100_000)
    assert seen == [100_000]
    assert guarded.budgets.bodies.large == 0


async def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_TIMEOUT_SECONDS", 0.05)
    guarded = Guarded()
    answer = await guarded.send("POST", LOG_BATCH, b"x", headers={"content-length": "10"}, unfinished=True)
    assert answer.status == 408
    assert guarded.budgets.bodies.large == 0


async def _send_as(principal: str, guarded: Guarded, body: bytes) -> Answer:
    CALLER.set(principal)
    return await guarded.send("POST", LOG_BATCH, body)


@pytest.mark.parametrize(("size", "together"), [(100_000, 2), (limits.BODY.most + 1, 1), (1000, 5)])
async def test_stock_gets_few_large_bodies_at_a_time(size: int, together: int) -> None:
    present = most = 0
    release = asyncio.Event()

    async def slow(scope: Message, receive: object, send: object) -> None:
        nonlocal present, most
        present += 1
        most = max(most, present)
        await release.wait()
        present -= 1
        await Behind()(scope, receive, send)

    guarded = Guarded(StockMlflow(slow, threads=5))
    tasks = [asyncio.create_task(_send_as(name, guarded, b" " * size)) for name in "abcde"]
    while present < together:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0.001)
    release.set()
    assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
    assert most == together


async def test_a_slow_reader_of_an_answer_keeps_nobody_waiting() -> None:
    reads = asyncio.Event()
    waiting = 0

    async def answers(scope: Message, receive: object, send: object) -> None:
        nonlocal waiting

        async def slowly(message: Message) -> None:
            nonlocal waiting
            if message["type"] == "http.response.start":
                waiting += 1
                await reads.wait()

        await stock(scope, receive, slowly)  # type: ignore[arg-type]

    stock = StockMlflow(Behind(), threads=1)
    guarded = Guarded(answers)
    tasks = [asyncio.create_task(_send_as(name, guarded, b" " * 100_000)) for name in "abcdefgh"]
    while waiting < len(tasks):
        await asyncio.sleep(0)
    reads.set()
    await asyncio.gather(*tasks, return_exceptions=True)


DEEP = b"[" * 150_000 + b"]" * 150_000


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("arrays", DEEP),
        ("objects", b'{"a":' * 60_000 + b"1" + b"}" * 60_000),
        ("mixed", b'[{"a" :\n ' * 40_000),
        ("never closed", b"[" * 300_000),
        ("closed in strings", b'["]]]]]]]]", ' * 40_000),
        ("behind a string", b'["\\\\\\"' + b" " * 300_000 + b'", ' + DEEP),
        ("UTF-16", DEEP.decode().encode("utf-16")),
        ("UTF-32", DEEP.decode().encode("utf-32-le")),
        (
            "a quote in UTF-16",
            ('["\u2200\u2222' + '", "a' * 30_000 + '", ' + "[" * 200_000).encode("utf-16-le"),
        ),
    ],
)
@pytest.mark.parametrize("path", [LOG_BATCH, f"{PREFIXES[1]}/experiments/create", "/v1/traces"])
async def test_a_large_document_of_many_levels_is_refused(path: str, name: str, document: bytes) -> None:
    guarded = Guarded()
    answer = await guarded.send("POST", path, document)
    assert answer.error == (400, "INVALID_PARAMETER_VALUE")
    assert f"levels; at most {limits.NESTING.most}" in answer.message


@pytest.mark.parametrize("unit", [b"{},", b"[],", b"1,", b'"",', b'"a":1,', b"null,\n", b",,,,a"])
async def test_a_document_of_too_many_values_is_refused_before_it_is_parsed(
    unit: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape, "VALUES", replace(limits.VALUES, most=5000))
    guarded = Guarded()
    answer = await guarded.send("POST", LOG_BATCH, b"[" + unit * 6000 + b" " * limits.LARGE_BODY)
    assert answer.error == (400, "INVALID_PARAMETER_VALUE")
    assert "names and values; at most 5000 " in answer.message
    assert guarded.budgets.bodies.large == 0


@pytest.mark.parametrize(
    "text",
    [
        "[[{{" * 100_000,
        '"[{' * 100_000,
        "\\" * 200_001,
        '\\"' * 100_000 + "[" * 1000,
        "😀" * 50_000,
        "a, b: c" * 100_000,
    ],
)
async def test_what_stands_in_strings_does_not_count(text: str) -> None:
    document = json.dumps({"tags": [{"key": "a", "value": text}, {"key": "b", "value": text}]}).encode()
    assert (await Guarded().send("POST", LOG_BATCH, document)).status == 200


@pytest.mark.parametrize(
    "encoding", ["gzip", "deflate", "br", "zstd", "x-gzip", "GZIP", "identity, gzip", "what"]
)
async def test_routes_of_json_take_no_encoding(encoding: str) -> None:
    guarded = Guarded()
    for path in (LOG_BATCH, "/graphql", "/ajax-api/3.0/mlflow/traces"):
        answer = await guarded.send("POST", path, b"{}", headers={"content-encoding": encoding})
        assert answer.error == (415, "INVALID_PARAMETER_VALUE")
    assert guarded.behind.bodies == []
    for plain in ("identity", "Identity", ""):
        assert (
            await guarded.send("POST", LOG_BATCH, b"{}", headers={"content-encoding": plain})
        ).status == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"path": "/a" * 2049}, 414),
        ({"query": "a=" + "b" * 16_384}, 414),
        ({"headers": {f"x-{number}": "1" for number in range(100)}}, 431),
        ({"headers": {"x-long": "a" * 65_536}}, 431),
        ({"headers": {"a" * 65_536: ""}}, 431),
        ({"path": "/a" * 2048, "query": "a" * 16_384}, 200),
        ({"headers": {f"x-{number}": "1" * 500 for number in range(90)}}, 200),
    ],
)
async def test_heads_are_bounded(request_: dict[str, object], status: int) -> None:
    fields: dict[str, object] = {"path": "/health", **request_}
    answer = await Guarded().send("GET", **fields)  # type: ignore[arg-type]
    assert answer.status == status
    if status != 200:
        assert "; at most " in answer.message
