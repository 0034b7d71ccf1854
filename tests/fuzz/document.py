"""An OpenAPI document of every route: from MLflow's protobuf descriptors, by hand where there are none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from mlflow.protos import databricks_pb2, model_registry_pb2, service_pb2, webhooks_pb2
from mlflow_aws_server.identity.access import ROUTES, Route

from tests.fuzz.values import CHOSEN_FREELY, KNOWN, NEEDED, QUERIES, SAME

Schema = dict[str, Any]

# Messages of MLflow nest further only by repeating themselves.
_DEEPEST = 5
_TEXT: Schema = {"type": "string", "maxLength": 60}
_ANYTHING: Schema = {}

_WHOLE: Schema = {"anyOf": [{"type": "integer"}, {"enum": [0, 2**31, -(2**63), 2**63, "1"]}]}
_NUMBERS: Mapping[int, Schema] = {
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", 1e308]}]},
    **dict.fromkeys(
        (
            FieldDescriptor.CPPTYPE_INT32,
            FieldDescriptor.CPPTYPE_INT64,
            FieldDescriptor.CPPTYPE_UINT32,
            FieldDescriptor.CPPTYPE_UINT64,
        ),
        _WHOLE,
    ),
}
_OF_GOOGLE: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "enum": ["2026-01-01T00:00:00Z", "x"]},
    "google.protobuf.Duration": {"type": "string", "enum": ["1.5s", "-1s", "x"]},
    "google.protobuf.FieldMask": {"type": "string", "enum": ["rationale", "assessmentName,feedback", "x.y"]},
    "google.protobuf.Value": _ANYTHING,
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array", "maxItems": 3},
}  # fmt: skip

_GRAPHQL: Schema = {
    "type": "object",
    "required": ["query"],
    "properties": {
        "query": {
            "anyOf": [
                {"enum": list(QUERIES)},
                _TEXT,
            ]
        },
        "variables": {"anyOf": [{"type": "object", "maxProperties": 3}, {"type": "null"}]},
        "operationName": {"anyOf": [_TEXT, {"type": "null"}]},
    },
}
_TELEMETRY: Schema = {
    "type": "object",
    "properties": {"records": {"type": "array", "items": {"type": "object"}, "maxItems": 3}},
}
# For what MLflow has no protobuf message for: the names of its query parameters, or its body.
_BY_HAND: Mapping[str, tuple[str, ...] | Schema] = {
    "GET /": (),
    "GET /version": (),
    "GET /static-files/<rest>": (),
    "GET /build/<rest>": (),
    "GET /mlflow-aws/whoami": (),
    "GET /mlflow-aws/metrics": (),
    "GET /mlflow/server-info": (),
    "GET /mlflow/ui-telemetry": (),
    "POST /mlflow/ui-telemetry": _TELEMETRY,
    "GET /graphql": ("query",),
    "POST /graphql": _GRAPHQL,
    "GET /get-artifact": ("run_uuid", "run_id", "path"),
    "GET /model-versions/get-artifact": ("name", "version", "path"),
    "GET /mlflow/metrics/get-history-bulk": ("run_id", "metric_key", "max_results"),
    "GET /mlflow/scorers/online-configs": ("scorer_ids",),
    "GET /mlflow/logged-models/<>/artifacts/files": ("artifact_file_path",),
    "GET /mlflow/get-trace-artifact": ("request_id", "path"),
    "POST /mlflow/experiments/search-datasets": {
        "type": "object",
        "properties": {"experiment_ids": {"type": "array", "items": {"enum": ["$experiment", "0", 1]},
        "maxItems": 3}},
    },
}  # fmt: skip
OTLP = "/v1/traces"
# The sender says that it is protobuf, which schemathesis cannot write.
_OTLP_BODIES = {
    "application/octet-stream": {"schema": {"type": "string", "enum": ["$otlp", "\x00", "x" * 50]}}
}


def document() -> dict[str, Any]:
    """The document; each `operationId` is "METHOD path", with the path as the table of routes has it."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        for method in ("GET", "POST") if route.method == "*" else (route.method,):
            path, operation = _operation(method, route)
            operation["operationId"] = f"{method} {route.path}"
            operation["x-permission"] = route.permission and route.permission.value
            operation["responses"] = {"default": {"description": "anything"}}
            paths.setdefault(path, {})[method.lower()] = operation
    return {"openapi": "3.0.3", "info": {"title": "MLflow", "version": "0"}, "paths": paths}


def _operation(method: str, route: Route) -> tuple[str, Schema]:
    endpoint = _endpoints().get((method, _shape(route.path)))
    names = iter(re.findall(r"\{(\w+)\}", endpoint[0]) if endpoint else ())
    # MLflow's own name of an id, so that it is given one that exists.
    path = re.sub(r"<(\w+)>", lambda part: f"{{{next(names, part[1])}}}", route.path)
    parameters = [_parameter("path", name) for name in re.findall(r"\{(\w+)\}", path)]
    if route.path == OTLP:
        header = {
            "in": "header",
            "name": "x-mlflow-experiment-id",
            "schema": {"enum": ["$experiment", "0", "x"]},
        }
        return path, {"parameters": [header], "requestBody": {"content": _OTLP_BODIES}}
    if endpoint is not None:
        message = endpoint[1]
        if method == "GET":
            return path, {"parameters": [*parameters, *_query(message)]}
        return path, {"parameters": parameters, "requestBody": _json(_message(message, ()))}
    if route.permission is None:
        body = {"requestBody": _json({"type": "object"})} if method != "GET" else {}
        return path, {"parameters": parameters, **body}
    by_hand = _BY_HAND[f"{method} {re.sub(r'^/(ajax-)?api/[23][.]0', '', _shape_of_ids(route.path))}"]
    if isinstance(by_hand, tuple):
        return path, {"parameters": [*parameters, *(_parameter("query", name) for name in by_hand)]}
    return path, {"parameters": parameters, "requestBody": _json(by_hand)}


@cache
def _endpoints() -> dict[tuple[str, str], tuple[str, Any]]:
    found = {}
    for module in (service_pb2, model_registry_pb2, webhooks_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                for endpoint in method.GetOptions().Extensions[databricks_pb2.rpc].endpoints:
                    for prefix in ("/api", "/ajax-api"):
                        path = f"{prefix}/{endpoint.since.major}.0{endpoint.path}"
                        found[endpoint.method, _shape(path)] = (path, method.input_type)
    return found


def _shape(path: str) -> str:
    return re.sub(r"<[^>]+>|\{[^}]+\}", "<>", path)


def _shape_of_ids(path: str) -> str:
    return re.sub(r"<(?!rest)[^>]+>", "<>", path)


def _json(schema: Schema) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _parameter(place: str, name: str) -> Schema:
    schema = _value(name, _TEXT)
    if place == "path":
        schema = {"anyOf": [{**_TEXT, "minLength": 1}, *_real(name)]}
    return {"in": place, "name": name, "required": place == "path", "schema": schema}


def _real(name: str) -> Iterator[Schema]:
    known = [value for value in KNOWN.get(SAME.get(name, name), ()) if value != ""]
    if known:
        yield {"type": "string", "enum": [str(value) for value in known]}


def _value(name: str, schema: Schema) -> Schema:
    known = KNOWN.get(SAME.get(name, name))
    if known is None:
        return schema
    # What exists is what leads deep into the code; the negative mode has its own ideas.
    right, *others = known
    kinds = [{"enum": [right]}, {"enum": others}] if others else [{"enum": [right]}]
    return {"anyOf": [*kinds, schema] if name in CHOSEN_FREELY else kinds}


def _query(message: Any) -> Iterator[Schema]:
    for field in message.fields:
        schema = _TEXT if field.message_type is not None else _scalar(field)
        if field.is_repeated:
            schema = {"type": "array", "items": schema, "maxItems": 3}
        yield {"in": "query", "name": field.name, "required": _required(field), "schema": schema}


def _message(message: Any, outer: tuple[str, ...]) -> Schema:
    if message.full_name in _OF_GOOGLE:
        return _OF_GOOGLE[message.full_name]
    if message.full_name in outer or len(outer) == _DEEPEST:
        return {"type": "object", "maxProperties": 2}
    within = (*outer, message.full_name)
    return {
        "type": "object",
        "properties": {field.name: _field(field, within) for field in message.fields},
        "required": [field.name for field in message.fields if _required(field)],
        "additionalProperties": False,
    }


def _field(field: Any, within: tuple[str, ...]) -> Schema:
    of = field.message_type
    if of is not None and of.GetOptions().map_entry:
        values = _field(of.fields_by_name["value"], within)
        return {"type": "object", "additionalProperties": values, "maxProperties": 3}
    schema = _scalar(field) if of is None else _message(of, within)
    return {"type": "array", "items": schema, "maxItems": 3} if field.is_repeated else schema


def _scalar(field: Any) -> Schema:
    if field.enum_type is not None:
        return {"enum": [*(value.name for value in field.enum_type.values), "NONE_OF_THEM", 99]}
    return _value(field.name, _NUMBERS.get(field.cpp_type, _TEXT))


def _required(field: Any) -> bool:
    marked = bool(field.GetOptions().Extensions[databricks_pb2.validate_required])
    return marked or (field.name in NEEDED and field.containing_oneof is None)
