"""Request bodies, read as MLflow reads them and written so that they can be read in one way only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlflow_aws_server.provenance.errors import unclear


def read(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Like MLflow's `_get_normalized_request_json`, it reads an empty body as an empty object, accepts UTF-16
    and UTF-32, takes the last of two values with one name, and parses a string that holds JSON.

    Raises:
        ProvenanceError: it is not a JSON object.
    """
    if not raw:
        return {}
    try:
        document = json.loads(raw)
        if isinstance(document, str):
            document = json.loads(document)
    except (ValueError, RecursionError):
        raise unclear("the body is not valid JSON") from None
    if not isinstance(document, dict):
        raise unclear("the body is not a JSON object")
    return document


def write(document: Mapping[str, Any]) -> bytes:
    """`document` as a body: ASCII, every name once."""
    try:
        return json.dumps(document, separators=(",", ":")).encode("ascii")
    except RecursionError:
        raise unclear("the body is nested too deeply") from None


def field(document: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    """A field by its name, or in camel case as protobuf's JSON allows; None if it is missing.

    Raises:
        ProvenanceError: it is given in both spellings, or has another type.
    """
    first, *others = name.split("_")
    spellings = {name, first + "".join(part.capitalize() for part in others)} & document.keys()
    if len(spellings) > 1:
        raise unclear(f"`{name}` is given in two spellings")
    value = document[spellings.pop()] if spellings else None
    if value is not None and type(value) is not kind:
        raise unclear(f"`{name}` is {value!r}, which is not of type {kind.__name__}")
    return value
