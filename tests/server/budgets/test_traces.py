"""Compressed and protobuf bodies: what MLflow gets of them, and what it is spared."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from mlflow.tracing.utils.otlp import decompress_otlp_body
from mlflow_aws_server.budgets import shape, traces
from mlflow_aws_server.budgets.encodings import decode
from mlflow_aws_server.errors import BodyError
from mlflow_aws_server.limits import FIELDS, MEMBERS, NESTING, RESOURCES, TRACES, VALUES, Limit
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.server.budgets.harness import Answer, Guarded

PROTOBUF = "application/x-protobuf"


def raw_deflate(plain: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(plain) + stream.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "members": (
        "gzip",
        lambda plain: gzip.compress(plain[:5]) + gzip.compress(b"") + gzip.compress(plain[5:]),
    ),
    "upper case": ("GZip", gzip.compress),
    "zeros behind": ("gzip", lambda plain: gzip.compress(plain) + b"\0" * 512),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("Deflate", raw_deflate),
    "identity": ("identity", bytes),
}


def spans(count: int, *, attributes: int = 2, resource: int = 2) -> ExportTraceServiceRequest:
    """A request as an exporter makes it."""
    request = ExportTraceServiceRequest()
    each = request.resource_spans.add()
    for number in range(resource):
        each.resource.attributes.add(key=f"resource-{number}").value.string_value = "of some length"
    scope = each.scope_spans.add()
    for number in range(count):
        span = scope.spans.add(
            trace_id=b"t" * 16, span_id=number.to_bytes(8, "big"), name="a", start_time_unix_nano=1
        )
        for attribute in range(attributes):
            span.attributes.add(key=f"key-{attribute}").value.int_value = 7
    return request


async def export(
    body: bytes, encoding: str = "", *, media: str = PROTOBUF, guarded: Guarded | None = None
) -> Answer:
    headers = {"content-type": media, **({"content-encoding": encoding} if encoding else {})}
    return await (guarded or Guarded()).send("POST", "/v1/traces", body, headers=headers)


def field(number: int, content: bytes) -> bytes:
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


@pytest.mark.parametrize("name", ENCODERS)
async def test_what_mlflow_decompresses_reaches_it_plain(name: str) -> None:
    encoding, encode = ENCODERS[name]
    guarded, plain = Guarded(), spans(3).SerializeToString()
    assert (await export(encode(plain), encoding, guarded=guarded)).status == 200
    assert guarded.behind.bodies == [plain]
    assert b"content-encoding" not in guarded.behind.headers[0]
    assert guarded.behind.headers[0][b"content-length"] == b"%d" % len(plain)


@pytest.mark.parametrize("encoding", ["x-gzip", "gzip, gzip", "gzip,deflate", "br", "zstd", "gzip;q=1", "gz"])
async def test_other_encodings_are_refused(encoding: str) -> None:
    assert (await export(gzip.compress(b""), encoding)).error == (415, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("gzip", "deflate") else pytest.mark.slow)
        for name in ENCODERS
        if name != "identity"
    ],
)
async def test_a_bomb_is_not_unfolded(name: str) -> None:
    encoding, encode = ENCODERS[name]
    bomb = encode(b"\0" * (8 * TRACES.most))
    assert len(bomb) < 100_000
    guarded = Guarded()
    tracemalloc.start()
    answer = await export(bomb, encoding, guarded=guarded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer.error == (413, "INVALID_PARAMETER_VALUE")
    assert f"at most {TRACES.most} " in answer.message
    assert peak < 4 * TRACES.most
    assert guarded.budgets.bodies.large == 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "damaged",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[:20],
        lambda whole: whole[:3],
        lambda whole: b"\x1f\x8b",
        lambda whole: b"no such stream at all",
        lambda whole: whole[:40] + b"\xff\xff\xff" + whole[43:],
        lambda whole: b"",
        lambda whole: whole + b"garbage",
        lambda whole: whole + whole[:9],
    ],
)
def test_damaged_bodies_are_judged_as_by_mlflow(encoding: str, damaged: Callable[[bytes], bytes]) -> None:
    whole = (gzip.compress if encoding == "gzip" else zlib.compress)(bytes(range(256)) * 10)
    body = damaged(whole)
    try:
        expected = decompress_otlp_body(body, encoding)
    except Exception:
        with pytest.raises(BodyError, match="cannot be decompressed"):
            decode(body, encoding, TRACES)
    else:
        assert decode(body, encoding, TRACES) == expected


async def test_a_body_of_very_many_members_is_refused() -> None:
    answer = await export(gzip.compress(b"") * 20_000, "gzip")
    assert answer.status == 400
    assert f"gzip members; at most {MEMBERS.most} " in answer.message


def _in_json(path: str, count: int, unit: object) -> bytes:
    span: dict[str, object] = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "a"}
    resource: dict[str, object] = {"attributes": []}
    {"span": span, "resource": resource}[path]["attributes"] = [unit] * count
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}).encode()


@pytest.mark.parametrize(
    ("limit", "body", "media"),
    [
        (FIELDS, b"\x0a\x00" * 5000, PROTOBUF),
        (FIELDS, field(1, field(2, b"\x12\x00" * 5000)), PROTOBUF),
        (FIELDS, field(1, field(2, field(2, b"\x4a\x00" * 5000))), PROTOBUF),
        (FIELDS, field(1, field(1, b"\x0a\x00" * 5000)), PROTOBUF),
        (FIELDS, field(1, field(2, field(2, b"\x5a\x00" * 5000))), PROTOBUF),
        (FIELDS, field(1, field(2, field(2, b"\x6a\x00" * 5000))), PROTOBUF),
        (FIELDS, b"\x78\x00" * 5000, PROTOBUF),
        (FIELDS, spans(200, attributes=10).SerializeToString(), PROTOBUF),
        (RESOURCES, spans(100, attributes=0, resource=100).SerializeToString(), PROTOBUF),
        (RESOURCES, spans(100, attributes=0, resource=100).SerializeToString(), PROTOBUF + "; charset=utf-8"),
        (RESOURCES, spans(100, attributes=0, resource=100).SerializeToString(), PROTOBUF + "\xa0"),
        (VALUES, _in_json("span", 3000, {}), "application/json"),
        (VALUES, _in_json("resource", 1000, {"key": "a"}), "application/json; charset=utf-8"),
    ],
)
async def test_a_request_that_would_take_long_is_refused(
    limit: Limit, body: bytes, media: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = {
        FIELDS: (traces, "FIELDS", 4000),
        RESOURCES: (traces, "RESOURCES", 200_000),
        VALUES: (shape, "VALUES", 2500),
    }
    for each, (module, name, most) in lower.items():
        monkeypatch.setattr(module, name, replace(each, most=most))
    answer = await export(body, media=media)
    assert answer.error == (400, "INVALID_PARAMETER_VALUE")
    assert f"{limit.unit}; at most {lower[limit][2]} " in answer.message


async def test_a_resource_is_counted_for_each_span_of_json_too() -> None:
    attributes = [{"key": f"k{number}", "value": {"stringValue": "x" * 100}} for number in range(500)]
    many = [{"traceId": "ab" * 16, "spanId": f"{number:016x}"} for number in range(1000)]
    for names in (("resourceSpans", "scopeSpans"), ("resource_spans", "scope_spans")):
        body = {names[0]: [{"resource": {"attributes": attributes}, names[1]: [{"spans": many}]}]}
        answer = await export(json.dumps(body).encode(), media="application/json")
        assert answer.status == 400
        assert f"bytes; at most {RESOURCES.most} " in answer.message


async def test_values_within_values_are_bounded() -> None:
    value = b"\x08\x01"
    for _ in range(NESTING.most + 1):
        value = field(5, field(1, value))
    answer = await export(field(1, field(1, field(1, field(2, value)))))
    assert answer.status == 400


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (b"\x0b\x0c", PROTOBUF),
        (b"\x0a\x05a", PROTOBUF),
        (b"\x0a", PROTOBUF),
        (b"\xff" * 100, PROTOBUF),
        (b"\x0a\x03\x12\x05\x00", PROTOBUF),
        (b"{", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "a"}]}]}]}', "application/json"),
        (b"[" * 5000, "application/json"),
    ],
)
async def test_what_is_no_request_is_refused(body: bytes, media: str) -> None:
    assert (await export(body, media=media)).error == (400, "INVALID_PARAMETER_VALUE")


async def test_what_exporters_send_passes() -> None:
    guarded = Guarded()
    for request in (spans(0), spans(1), spans(2000, attributes=5, resource=15), spans(1, attributes=1000)):
        body = request.SerializeToString()
        assert (await export(gzip.compress(body), "gzip", guarded=guarded)).status == 200
        assert guarded.behind.bodies[-1] == body
    picture = spans(1)
    picture.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="image").value.string_value = (
        "x" * 6_000_000
    )
    assert (await export(picture.SerializeToString(), guarded=guarded)).status == 200


async def test_an_export_without_a_known_length_passes() -> None:
    guarded, body = Guarded(), gzip.compress(spans(3).SerializeToString())
    headers = {"content-type": PROTOBUF, "content-encoding": "gzip"}
    answer = await guarded.send("POST", "/v1/traces", [body[:9], body[9:]], chunked=True, headers=headers)
    assert answer.status == 200
    assert guarded.behind.bodies == [spans(3).SerializeToString()]
