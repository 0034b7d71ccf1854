"""What spans would cost MLflow, before it converts them."""

from __future__ import annotations

from typing import Any

from mlflow_aws_server.errors import BodyError
from mlflow_aws_server.limits import FIELDS, NESTING, RESOURCES

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# By the number of a field that is a message: the fields of that message.
_Messages = dict[int, Any]


def check(body: bytes, *, is_json: bool) -> None:
    """Refuse an OTLP request that takes more memory or time than its size suggests.

    Raises:
        LimitError: it is beyond a limit.
        BodyError: it is no OTLP request.
    """
    from google.protobuf.json_format import Parse, ParseError
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    try:
        if is_json:
            # Ids are written in hexadecimal digits, which are valid Base64 too.
            Parse(body, request, ignore_unknown_fields=True)
        else:
            _count(body, _messages(request.DESCRIPTOR, {}))
            request.ParseFromString(body)
    except (ParseError, DecodeError, IndexError, ValueError, RecursionError):
        raise BodyError(400, "The body is not a valid OTLP request.") from None
    # MLflow copies the resource for each of its spans.
    RESOURCES.check(
        sum(
            each.resource.ByteSize() * sum(len(scope.spans) for scope in each.scope_spans)
            for each in request.resource_spans
        )
    )


def _messages(descriptor: Any, known: dict[str, _Messages]) -> _Messages:
    found = known.get(descriptor.full_name)
    if found is None:
        # Known before it is filled: an OTLP value may hold other values.
        found = known[descriptor.full_name] = {}
        for field in descriptor.fields:
            if field.message_type is not None:
                found[field.number] = _messages(field.message_type, known)
    return found


def _count(body: bytes, root: _Messages) -> None:
    """Walk through protobuf's wire format: its parser would first make an object of every two bytes."""
    seen = 0
    todo = [(0, len(body), root, 1)]
    while todo:
        at, end, messages, depth = todo.pop()
        NESTING.check(depth)
        while at < end:
            seen += 1
            FIELDS.check(seen)
            tag, at = _varint(body, at)
            kind = tag & 7
            if kind == _BYTES:
                size, at = _varint(body, at)
                inner = messages.get(tag >> 3)
                if inner is not None:
                    todo.append((at, at + size, inner, depth + 1))
                at += size
            elif kind == _VARINT:
                _, at = _varint(body, at)
            elif kind in (_FIXED64, _FIXED32):
                at += 8 if kind == _FIXED64 else 4
            else:
                raise ValueError("OTLP has no groups")
        if at != end:
            raise ValueError("a field ends behind its message")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
