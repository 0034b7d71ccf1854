"""The tags that only the server writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlflow_aws_server.provenance.errors import reserved, unclear

RESERVED = "mlflow_aws."
PRINCIPAL = "mlflow_aws.principal"
HISTORY = "mlflow_aws.history."

_PLAIN = RESERVED.rstrip(".").encode("ascii")
# How JSON can spell an ASCII letter otherwise.
_ESCAPED_LETTER = re.compile(rb"\\u00[0-7]")


def is_reserved(key: str) -> bool:
    """Whether only the server may write a tag of this name."""
    return key.startswith(RESERVED)


def may_name_reserved(body: bytes) -> bool:
    """Whether a JSON document could name a reserved tag, in any encoding or spelling; cheap.

    False is certain. True asks for a closer look. It holds for JSON within a JSON string as well: there,
    a backslash is a backslash or the escape of one, which counts as spelt otherwise.
    """
    return (
        _PLAIN in body
        # In every document that is UTF-16 or UTF-32.
        or b"\x00" in body
        # Looking for one byte first costs next to nothing, and most bodies have none.
        or (b"\\" in body and _ESCAPED_LETTER.search(body) is not None)
    )


def refuse_reserved(document: Mapping[str, Any]) -> None:
    """Look at a request's `key` and at the keys of its `tags`.

    Raises:
        ProvenanceError: one of them is reserved, or is nothing that MLflow would take for a key.
    """
    keys = [document.get("key"), *(tag.get("key") for tag in _tags(document))]
    for key in keys:
        if key is None:
            continue
        if not isinstance(key, str):
            raise unclear(f"the key of a tag is {key!r}, which is no string")
        if is_reserved(key):
            raise reserved(key)


def stamp(document: Mapping[str, Any], *, principal: str) -> dict[str, Any]:
    """The same request, saying who made it, and nothing else under the server's names.

    Reserved tags are dropped, not refused: clients copy the tags of one version to the next.

    Raises:
        ProvenanceError: the tags are no list of objects with string keys.
    """
    kept = []
    for tag in _tags(document):
        key = tag.get("key")
        if not isinstance(key, str):
            raise unclear(f"the key of a tag is {key!r}, which is no string")
        if not is_reserved(key):
            kept.append(tag)
    return {**document, "tags": [*kept, {"key": PRINCIPAL, "value": principal}]}


def _tags(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    tags = document.get("tags")
    if tags is None:
        return []
    if not isinstance(tags, list) or not all(isinstance(tag, dict) for tag in tags):
        raise unclear("`tags` is no list of objects with `key` and `value`")
    return tags
