"""Requests to MLflow's routes, made from what MLflow's own definition says they consist of."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from mlflow.protos import databricks_pb2
from mlflow.protos.model_registry_pb2 import ModelRegistryService
from mlflow.protos.service_pb2 import MlflowService
from mlflow.protos.webhooks_pb2 import WebhookService

Place = tuple[str | int, ...]

_DEEPEST = 3
_WELL_KNOWN = {"Struct": {"a": 1}, "Timestamp": "2024-01-01T00:00:00Z", "Duration": "1s", "Value": "x"}


@functools.cache
def _messages() -> dict[tuple[str, str], Descriptor]:
    return {
        (endpoint.method, re.sub(r"\{[^}]+\}", "<>", endpoint.path)): method.input_type
        for service in (MlflowService, ModelRegistryService, WebhookService)
        for method in service.DESCRIPTOR.methods
        for endpoint in method.GetOptions().Extensions[databricks_pb2.rpc].endpoints
    }


def message_of(method: str, path: str) -> Descriptor | None:
    """What a route's requests consist of; None of a route that MLflow does not define so."""
    path = re.sub(r"<\w+>", "<>", path)
    return _messages().get((method, re.sub(r"^/(ajax-)?api/\d\.0", "", path)))


def example(kind: Descriptor, known: Mapping[str, str], *, depth: int = 0) -> dict[str, Any]:
    """A request with every field; `known` are names that exist."""
    made = {field.name: _value(field, known, depth) for field in kind.fields}
    return {name: value for name, value in made.items() if value is not None}


def _value(field: FieldDescriptor, known: Mapping[str, str], depth: int) -> Any:
    value: Any = 1
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry:
            return {"k": "v"}
        if field.message_type.full_name.startswith("google.protobuf."):
            value = _WELL_KNOWN.get(field.message_type.name)
        else:
            value = example(field.message_type, known, depth=depth + 1) if depth < _DEEPEST else None
    elif field.enum_type is not None:
        value = field.enum_type.values[-1].name
    elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        value = known.get(field.name, known.get(field.name.removesuffix("s"), "word"))
    elif field.type == FieldDescriptor.TYPE_BOOL:
        value = False
    elif field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        value = 1.5
    return [value] if field.is_repeated and value is not None else value


def places(document: Any, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value in it that holds no other, and where."""
    if isinstance(document, dict | list):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from places(value, (*at, key))
    else:
        yield at, document


def changed(document: dict[str, Any], values: Mapping[Place, Any]) -> dict[str, Any]:
    """The same with other values."""
    made = copy.deepcopy(document)
    for (*way, last), value in values.items():
        inner: Any = made
        for key in way:
            inner = inner[key]
        inner[last] = value
    return made
